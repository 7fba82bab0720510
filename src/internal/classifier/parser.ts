import type { LibPgQuery } from "libpg-query/wasm/libpg-query.js"

/**
 * PostgreSQL's own parser, as WebAssembly.
 *
 * We hold an instance of our own instead of the package's shared one: a text that exhausts the call stack leaves the
 * instance it ran on corrupt (measured: after 28 of them every later text failed with "table index is out of bounds"), so
 * such an instance has to be thrown away, which the package's wrapper has no way to do.
 */
export type Parsed = {
  readonly stmts?: ReadonlyArray<{ readonly stmt?: Readonly<Record<string, unknown>> }>
}

/** Longer texts (in UTF-16 code units) are not parsed: 64 Ki of them take about 50 ms. */
export const maxLength = 65_536

const maxBytes = maxLength * 3

interface Instance {
  readonly module: LibPgQuery
  readonly input: number
}

let current: Instance | undefined
let loading: Promise<void> | undefined
const encoder = new TextEncoder()

// When it is needed, so that a program with a classifier of its own never loads it, and a bundle can leave it out.
const create = async (): Promise<LibPgQuery> => {
  const { default: createModule } = await import("libpg-query/wasm/libpg-query.js")
  return createModule()
}

/** Whether there is an instance. */
export const isThere = (): boolean => current !== undefined

/** Idempotent. After a crash of the instance `parse` calls it itself. */
export const load = (): Promise<void> => {
  if (current !== undefined) return Promise.resolve()
  loading ??= create().then(
    (module) => {
      current = { module, input: module._malloc(maxBytes + 1) }
      loading = undefined
    },
    (cause) => {
      loading = undefined
      throw cause
    }
  )
  return loading
}

const discard = () => {
  current = undefined
  // A failure to load again leaves the classifier answering "write" until a later text tries once more.
  load().catch(() => {})
}

/**
 * `"broken"`: PostgreSQL's grammar refuses it. `"unavailable"`: nothing is known about the text, and the answer must not be
 * remembered.
 */
export const parse = (sql: string): Parsed | "broken" | "unavailable" => {
  if (current === undefined) {
    load().catch(() => {})
    return "unavailable"
  }
  // The driver sends text as a C string too, so what follows a NUL is not what we would have parsed.
  if (sql.indexOf("\u0000") >= 0) return "broken"
  try {
    return parseWith(current, sql)
  } catch {
    discard()
    return "unavailable"
  }
}

const parseWith = ({ input, module }: Instance, sql: string): Parsed | "broken" => {
  // As the driver does, a lone surrogate becomes U+FFFD: what is parsed is what the server reads.
  const { written } = encoder.encodeInto(sql, module.HEAPU8.subarray(input, input + maxBytes))
  module.HEAPU8[input + written] = 0
  const result = module._wasm_parse_query_raw(input)
  if (result === 0) throw new Error("out of memory")
  const tree = module.HEAPU32[result >>> 2]!
  const error = module.HEAPU32[(result + 8) >>> 2]!
  const json = tree === 0 || error !== 0 ? undefined : readString(module.HEAPU8, tree)
  module._wasm_free_parse_result(result)
  return json === undefined ? "broken" : JSON.parse(json)
}

const readString = (heap: Uint8Array, start: number) =>
  Buffer.from(heap.buffer, start, heap.indexOf(0, start) - start).toString("utf8")
