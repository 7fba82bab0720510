/** What a statement leaves behind for the statements after it on its connection. */
export interface Leaves {
  /**
   * How long it lasts: to the end of the transaction (`SET LOCAL`, locks of tables, cursors), or of the connection (`SET`,
   * advisory locks of a session, temporary tables, `LISTEN`, `PREPARE`). `"unknown"`: it runs what the text does not show (`DO`,
   * `CALL`, a volatile function), which may leave either.
   */
  readonly until: "transaction" | "connection" | "unknown"
  /** Whether statements after it mean something else without it: a role, a setting, a temporary table. */
  readonly sets: boolean
  /** Whether it begins or ends a transaction. Savepoints do not. */
  readonly controls: boolean
  /** Whether it makes or drops prepared statements. */
  readonly prepares: boolean
}

const rank = { transaction: 0, unknown: 1, connection: 2 }

/** What two leave together. */
export const both = (a: Leaves | undefined, b: Leaves | undefined): Leaves | undefined => {
  if (a === undefined || b === undefined || a === b) return a ?? b
  return {
    until: rank[a.until] < rank[b.until] ? b.until : a.until,
    sets: a.sets || b.sets,
    controls: a.controls || b.controls,
    prepares: a.prepares || b.prepares
  }
}

/** What a statement does. */
export interface Verdict {
  readonly kind: "read" | "write" | "session"
  readonly reason: string
  readonly changesSchema: boolean
  readonly leaves?: Leaves
  /** A plan of it may hold the value that a setting has when it is planned. */
  readonly foldsSettings?: boolean
  /**
   * It was not shown to be a write: nothing is known of the text, or of a name in it. `"new"`: the catalog does not know the
   * name, and may have it by now.
   */
  readonly guess?: "text" | "new" | undefined
}

/** Why a statement, or something that it uses, is not a read. */
export interface Finding extends Verdict {
  readonly kind: "write" | "session"
}

export const write = (reason: string): Finding => ({ kind: "write", reason, changesSchema: false })

/** A write that changes something that the catalog snapshot holds. */
export const schemaChange = (reason: string): Finding => ({ kind: "write", reason, changesSchema: true })

export const session = (reason: string): Finding => ({ kind: "session", reason, changesSchema: false })

/** A write for want of knowledge of a name. */
export const unknown = (reason: string): Finding => ({ kind: "write", reason, changesSchema: false, guess: "new" })
