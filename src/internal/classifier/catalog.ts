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
  /**
   * What statements that name something leave behind on their connection, as far as the bodies of functions show it; absent or
   * `null` for nothing. Names are those of functions, types and operators, in whatever schema.
   */
  readonly leaves?: CatalogLeaves | null
  /** The functions that are labelled IMMUTABLE and read a setting, and what reaches them; absent or `null` for none. */
  readonly folds?: CatalogFolds | null
}

/**
 * Functions that are labelled IMMUTABLE though their value hangs on a setting. The planner puts such a value into the plan, where
 * it stays when the setting is another one: a statement that reaches one is never prepared under a name.
 *
 * @since 0.1.0
 * @category catalog
 */
export interface CatalogFolds {
  /** Functions, types, operators and relations by which a statement may reach one, in whatever schema. */
  readonly names: ReadonlyArray<string>
  /** They themselves, with their arguments, and the policies of row-level security that call them. */
  readonly functions: ReadonlyArray<{ readonly name: string; readonly policies: ReadonlyArray<string> }>
}

/**
 * What is left behind on a connection.
 *
 * @since 0.1.0
 * @category catalog
 */
export interface CatalogLeft {
  /** How long it lasts: to the end of the transaction, or of the connection. `"unknown"`: one of both. */
  readonly until: "transaction" | "unknown" | "connection"
  /** Whether statements after it mean something else without it: a setting, a role, a temporary table. */
  readonly sets: boolean
}

/**
 * What the functions of a server leave behind on the connections that call them, and by what a statement reaches them.
 *
 * @since 0.1.0
 * @category catalog
 */
export interface CatalogLeaves {
  /** Functions, types and operators. */
  readonly names: { readonly [name: string]: CatalogLeft }
  /** Relations that leave something where they are read: views, and tables with policies. */
  readonly read: { readonly [name: string]: CatalogLeft }
  /** Relations that do where they are written to: by triggers, defaults, constraints, rules, policies. */
  readonly written: { readonly [name: string]: CatalogLeft }
  /** What the event triggers do. */
  readonly schemaChange?: CatalogLeft | null
}
