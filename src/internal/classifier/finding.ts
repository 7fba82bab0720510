/** What a statement does. */
export interface Verdict {
  readonly kind: "read" | "write" | "session"
  readonly reason: string
  readonly changesSchema: boolean
}

/** Why a statement, or something that it uses, is not a read. */
export interface Finding extends Verdict {
  readonly kind: "write" | "session"
}

export const write = (reason: string): Finding => ({ kind: "write", reason, changesSchema: false })

/** A write that changes something that the catalog snapshot holds. */
export const schemaChange = (reason: string): Finding => ({ kind: "write", reason, changesSchema: true })

export const session = (reason: string): Finding => ({ kind: "session", reason, changesSchema: false })
