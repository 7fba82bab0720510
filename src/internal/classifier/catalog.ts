/**
 * Why a name is not fine in a read.
 *
 * @since 0.1.0
 * @category catalog
 */
export interface CatalogCause {
  readonly kind: "write" | "session"
  readonly reason: string
}

/**
 * The names of one sort of object, by schema: those fine in a read, and the others with the cause. A name that stands for
 * several objects, such as an overloaded function, is fine only if all of them are.
 *
 * @since 0.1.0
 * @category catalog
 */
export interface CatalogNames {
  readonly [schema: string]: {
    readonly reads: ReadonlyArray<string>
    readonly others: { readonly [name: string]: CatalogCause }
  }
}

/**
 * A snapshot of what a server's catalog says about the objects that are not PostgreSQL's own. Plain data.
 *
 * @since 0.1.0
 * @category catalog
 */
export interface Catalog {
  /** `server_version_num`: 180004 is 18.4. */
  readonly version: number
  /** The setting `standard_conforming_strings`. */
  readonly standardStrings: boolean
  /** PostgreSQL's own functions that have a volatile overload on this server. */
  readonly volatileBuiltins: ReadonlyArray<string>
  readonly functions: CatalogNames
  readonly relations: CatalogNames
  readonly types: CatalogNames
  /** Operators, by name alone, that are not fine in a read. */
  readonly operators: { readonly [name: string]: CatalogCause }
  /**
   * Names that are not fine in a read where `t.name` calls `name(t)`. `scalar`: only where `t` is a value that is not a row.
   */
  readonly attributes: { readonly [name: string]: CatalogCause & { readonly scalar: boolean } }
  /** What may be part of any SELECT and is not fine in a read: an implicit cast between PostgreSQL's own types, for one. */
  readonly everywhere?: CatalogCause | null
}
