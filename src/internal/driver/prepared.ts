import { createHash } from "node:crypto"
import type * as Pg from "pg"
import { forgetPrepared } from "./client.js"

// A statement is worth a name from its second use on: most texts that are used once are never used again.
const maxTexts = 4096
const maxTextLength = 16_384
const preparable = /^\s*(?:select|insert|update|delete|with|values|merge)\b/i

/**
 * Which statements of one pool are prepared on the server, under which names, and on which connections. A name is a hash
 * of the text, so it is the same on every connection and shorter than the 63 bytes that PostgreSQL keeps of one.
 */
export class PreparedStatements {
  private readonly texts = new Map<string, string | undefined>()
  private readonly prepared = new WeakMap<Pg.PoolClient, Set<string>>()

  constructor(private readonly maxPerConnection: number) {}

  /** The name to run a text under; none for the first use, and for what cannot or need not be prepared. */
  nameOf(sql: string, parameters: number): string | undefined {
    if (this.texts.has(sql)) {
      return this.texts.get(sql)
    }
    if (sql.length <= maxTextLength) {
      // Without parameters a text may hold several statements, which only the simple protocol takes.
      const single = parameters > 0 || !sql.includes(";")
      const name =
        single && preparable.test(sql)
          ? `edr_${createHash("sha256").update(sql).digest("hex").slice(0, 40)}`
          : undefined
      this.texts.set(sql, name)
      if (this.texts.size > maxTexts) {
        this.texts.delete(this.texts.keys().next().value!)
      }
    }
    return undefined
  }

  /**
   * Notes that a connection is about to use a name. Returns the name that has to be deallocated there first, when the
   * connection already holds as many as it may.
   */
  use(client: Pg.PoolClient, name: string): string | undefined {
    let names = this.prepared.get(client)
    if (names === undefined) {
      names = new Set()
      this.prepared.set(client, names)
    } else if (names.delete(name)) {
      names.add(name)
      return undefined
    }
    names.add(name)
    if (names.size <= this.maxPerConnection) {
      return undefined
    }
    const oldest = names.values().next().value!
    this.forget(client, oldest)
    return oldest
  }

  /** Forgets a name on a connection, so that its next use parses the text again. */
  forget(client: Pg.PoolClient, name: string): void {
    this.prepared.get(client)?.delete(name)
    forgetPrepared(client, name)
  }
}

/**
 * Whether an error says that a prepared statement has to be prepared again: the server does not know it (26000: somebody
 * ran DEALLOCATE or DISCARD ALL), knows it although the driver does not (42P05), or its result type has changed since
 * (0A000 of RevalidateCachedQuery: DDL).
 */
export const isStale = (error: Error): boolean => {
  const { code, routine } = error as { readonly code?: string; readonly routine?: string }
  return code === "26000" || code === "42P05" || (code === "0A000" && routine === "RevalidateCachedQuery")
}
