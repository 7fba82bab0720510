import * as Pg from "pg"
import { ProtocolViolation } from "./failure.js"
import { executeAndSync, runWith } from "./messages.js"
import type { Opening } from "./opening.js"
import type { Prepared } from "./prepared.js"
import { suspendedUnasked } from "./unasked.js"

/** What the driver's connection understands. Its type declarations ask for more than it reads. */
export interface Wire {
  readonly stream: { readonly writable: boolean; cork(): void; uncork(): void; write(bytes: Buffer): unknown }
  readonly parsedStatements: Record<string, string>
  readonly submittedNamedStatements: Record<string, string>
  parse(message: { readonly name: string; readonly text: string }): void
  bind(message: { readonly statement: string; readonly values: ReadonlyArray<unknown>; readonly binary: boolean }): void
  describe(message: { readonly type: "P" | "S"; readonly name: string }): void
}

/** What the driver's results keep of the columns. */
interface Columns {
  fields: ReadonlyArray<unknown>
  _parsers: unknown
  _prebuiltEmptyResultObject: unknown
}

interface Internals extends Columns {
  addFields(fields: ReadonlyArray<unknown>): void
  addCommandComplete(message: object): void
  parseRow(fields: ReadonlyArray<string | null>): object
}

type Callback = (error: Error | null | undefined, result: Pg.QueryResult) => void

/**
 * One run of a statement, for `client.query`, which calls the methods `submit` and `handle...`. What a prepared one takes and
 * returns is asked once: for as long as it is prepared the server runs it with that result, or not at all ("cached plan
 * must not change result type").
 */
export class Statement {
  /** The driver fills in here the types that it was configured with, and whether results are binary. */
  readonly _result: Pg.Result<object>
  binary = false
  private failure: Error | undefined
  private isDescribed = false
  private isSent = false

  /** Without a name it is parsed for this run alone. */
  constructor(
    readonly name: string,
    readonly text: string,
    private readonly values: ReadonlyArray<unknown>,
    asArrays: boolean,
    private readonly prepared: Prepared | undefined,
    private readonly opening: Opening | undefined,
    /** The driver puts another one in its place where there is a time limit. */
    public callback: Callback
  ) {
    this._result = new Pg.Result(asArrays ? "array" : "", undefined as never)
  }

  /** What the driver does with a statement that it takes. */
  prepareResult(types: unknown, binary: boolean): void {
    Object.assign(this._result, { _types: types })
    this.binary = binary
  }

  submit(connection: unknown): void {
    if (!this.isSent) this.send(connection as Wire)
  }

  /** Sends it now. Before the driver has its turn for it, only behind what the driver has sent already. */
  send(wire: Wire): void {
    const { binary, name, text, values } = this
    this.isSent = true
    const known = this.prepared?.columns as Columns | undefined
    if (known !== undefined && wire.parsedStatements[name] !== undefined) {
      this.isDescribed = true
      const { opening, result } = this
      result.fields = [...known.fields]
      result._parsers = known._parsers
      result._prebuiltEmptyResultObject = known._prebuiltEmptyResultObject
      if (!wire.stream.writable) return
      const bytes = runWith(name, values, binary)
      wire.stream.write(opening === undefined ? bytes : Buffer.concat([opening.bytes, bytes]))
      return
    }
    wire.stream.cork()
    try {
      if (this.opening !== undefined && wire.stream.writable) wire.stream.write(this.opening.bytes)
      if (wire.parsedStatements[name] === undefined) {
        wire.parse({ name, text })
        if (name !== "") wire.submittedNamedStatements[name] = text
      }
      // The types of its parameters, and its columns. Only a portal knows that they are binary.
      if (name !== "") wire.describe({ type: "S", name })
      wire.bind({ statement: name, values, binary })
      if (name === "" || binary) wire.describe({ type: "P", name: "" })
      if (wire.stream.writable) wire.stream.write(executeAndSync)
    } finally {
      wire.stream.uncork()
    }
  }

  handleParameterDescription({ dataTypeIDs }: { readonly dataTypeIDs: ReadonlyArray<number> }): void {
    if (this.prepared !== undefined) this.prepared.types = [...dataTypeIDs]
  }

  handleRowDescription({ fields }: { readonly fields: ReadonlyArray<unknown> }): void {
    this.result.addFields(fields)
  }

  handleDataRow({ fields }: { readonly fields: ReadonlyArray<string | null> }): void {
    if (this.failure !== undefined) return
    // Behind a proxy the name may stand for another statement than the one that was described.
    if (fields.length !== this.result.fields.length) {
      throw new ProtocolViolation(
        `The server has sent rows of ${fields.length} columns, not ${this.result.fields.length}`
      )
    }
    try {
      this._result.rows.push(this.result.parseRow(fields))
    } catch (error) {
      // A parser of the user's has thrown. Thrown out of here, it would end the process.
      this.failure = error as Error
    }
  }

  handleCommandComplete(message: object): void {
    if (this.opening?.isDone === false) {
      this.opening.isDone = true
      return
    }
    this.result.addCommandComplete(message)
    if (this.isDescribed || this.failure !== undefined || this.prepared === undefined) return
    const { _parsers, _prebuiltEmptyResultObject, fields } = this.result
    this.prepared.columns = { fields, _parsers, _prebuiltEmptyResultObject }
  }

  handleEmptyQuery(): void {}

  handlePortalSuspended(): void {
    throw suspendedUnasked()
  }

  handleError(error: Error): void {
    this.callback(this.failure ?? error, this._result)
  }

  handleReadyForQuery(): void {
    if (this.failure !== undefined && this.prepared !== undefined) this.prepared.columns = undefined
    this.callback(this.failure, this._result)
  }

  private get result(): Internals {
    return this._result as unknown as Internals
  }
}
