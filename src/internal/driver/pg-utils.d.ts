// The driver exports its conversion of parameters, without types.
declare module "pg/lib/utils.js" {
  const utils: {
    /** Text, bytes or `null`. What it has converted it leaves as it is. */
    readonly prepareValue: (value: unknown) => string | Uint8Array | null
  }
  export default utils
}
