// The package publishes types for its wrapper only. The classifier owns an instance of the WebAssembly module underneath
// (see parser.ts), which is this factory.
declare module "libpg-query/wasm/libpg-query.js" {
  export interface LibPgQuery {
    readonly HEAPU8: Uint8Array
    readonly HEAPU32: Uint32Array
    readonly _malloc: (bytes: number) => number
    readonly _wasm_parse_query_raw: (text: number) => number
    readonly _wasm_free_parse_result: (result: number) => void
  }
  const create: () => Promise<LibPgQuery>
  export default create
}
