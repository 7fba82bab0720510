/**
 * Statements with the answer that a person gives for each, and why. The labels are made by hand from PostgreSQL's manual and
 * from what went wrong elsewhere; never copy one from what the classifier says.
 */
export type Kind = "read" | "write" | "session"

export interface Entry {
  readonly sql: string
  /** The answer of a classifier that knows the catalog of a server with `schema`. */
  readonly kind: Kind
  /** The answer of one that asks no server, where it differs. */
  readonly bare: Kind
  /** A part of the reason. */
  readonly reason: string | undefined
}

const parse =
  (kind: Kind, bare: Kind) =>
  (line: string): Entry => {
    const [sql, reason] = line.split(" ## ")
    return { sql: sql!.trim(), kind, bare, reason: reason?.trim() }
  }

/** One statement a line; ` ## ` sets off a part of the reason. */
export const lines = (kind: Kind, text: string, bare: Kind = kind): ReadonlyArray<Entry> =>
  text
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map(parse(kind, bare))

/** Texts of several lines, or of none. */
export const texts = (kind: Kind, ...sqls: ReadonlyArray<string>): ReadonlyArray<Entry> =>
  sqls.map((sql) => ({ sql, kind, bare: kind, reason: undefined }))
