import * as Pg from "pg"

interface RowParser {
  addFields(fields: ReadonlyArray<unknown>): void
  parseRow(fields: ReadonlyArray<string | null>): object
}

/** Collects the rows of a statement, for `client.query`, which calls the methods `handle...`. */
export abstract class RowReader {
  /** The driver looks here for a result without types, and fills in those that the client was configured with. */
  readonly _result: Pg.Result<object> = new Pg.Result("", undefined as never)

  protected rows: Array<object> = []
  protected failure: Error | undefined

  handleRowDescription(message: { readonly fields: ReadonlyArray<unknown> }): void {
    this.parser.addFields(message.fields)
  }

  handleDataRow(message: { readonly fields: ReadonlyArray<string | null> }): void {
    if (this.failure !== undefined) return
    try {
      this.rows.push(this.parser.parseRow(message.fields))
    } catch (error) {
      // A parser of the user's has thrown. Thrown out of here, it would end the process.
      this.failure = error as Error
    }
  }

  private get parser(): RowParser {
    return this._result as unknown as RowParser
  }
}
