/** PostgreSQL counts timelines from 1, in four bytes. */
const maxTimeline = 0xffff_ffff

/** A timeline as a server tells it: NULL where it does not say, a number or its digits. Anything else is an error. */
export const timelineOf = (told: unknown): number | undefined | Error => {
  if (told === null || told === undefined) return undefined
  const isNumber = typeof told === "number" || (typeof told === "string" && /^(?:\d+|0x[0-9A-Fa-f]+)$/.test(told))
  const timeline = isNumber ? Number(told) : Number.NaN
  return Number.isInteger(timeline) && timeline >= 1 && timeline <= maxTimeline
    ? timeline
    : new Error(`The server says that it is on timeline ${JSON.stringify(told)}`)
}
