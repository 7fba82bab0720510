import { Effect } from "effect"
import * as Pg from "pg"
import type { Found, Other } from "./Other.js"
import * as Scratch from "./Scratch.js"

/** What is used of the package. */
interface Repository {
  findOneBy(where: { readonly id: number }): Promise<Found | null>
}

interface DataSource {
  initialize(): Promise<DataSource>
  destroy(): Promise<void>
  getRepository(entity: object): Repository
}

interface TypeOrm {
  readonly DataSource: new (options: object) => DataSource
  readonly EntitySchema: new (options: object) => object
}

const version = "1.1.1"

const project: Scratch.Project = {
  name: "typeorm",
  dependencies: { typeorm: version },
  entry: `export { DataSource, EntitySchema } from "typeorm"\n`
}

/** TypeORM has no prepared statements. */
export const typeOrm: Other = {
  name: `TypeORM ${version} replication on pg`,
  atLeast: 1.3,
  connect: ({ poolSize, primary, replica }) =>
    Effect.flatMap(Scratch.load<TypeOrm>(project), ({ DataSource, EntitySchema }) => {
      const item = new EntitySchema({
        name: "item",
        columns: {
          id: { type: "integer", primary: true },
          name: { type: "text" },
          price: { type: "numeric" },
          inStock: { type: "boolean", name: "in_stock" }
        }
      })
      return Effect.acquireRelease(
        Effect.promise(() =>
          new DataSource({
            type: "postgres",
            driver: Pg,
            replication: { master: { url: primary }, slaves: [{ url: replica }] },
            poolSize,
            entities: [item]
          }).initialize()
        ),
        (source) => Effect.promise(() => source.destroy())
      ).pipe(
        Effect.map((source) => {
          const items = source.getRepository(item)
          return (id) => items.findOneBy({ id })
        })
      )
    })
}
