/** What a server says of itself right after a statement. */
export interface Answer {
  readonly isStandby: boolean
  /** The insert position of a primary, the replay position of a standby. */
  readonly lsn: bigint
  /** `undefined` where a standby does not say. */
  readonly timeline: number | undefined
}

/** A listener for a server's position right after a statement. */
export interface Sampler {
  /** The position is wanted: asked once there is a connection. */
  readonly isWanted: boolean
  /** A statement is sent, with the question behind it. Returns a number for the answer. */
  readonly send: () => number
  /** The answer, or why there is none. The last thing that happens. */
  readonly heard: (question: number, answer: Answer | Error) => void
}

/** What a probe tells of a server and its position. */
export interface ProbedPosition {
  readonly role: "primary" | "replica"
  readonly system: string
  readonly timeline: number | undefined
  readonly position: bigint
  /** When the server has started, in milliseconds of its own clock. */
  readonly startedAt: number
}
