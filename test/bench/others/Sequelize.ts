import { Effect } from "effect"
import * as Pg from "pg"
import { type Found, type Other, partsOf } from "./Other.js"
import * as Scratch from "./Scratch.js"

/** What is used of the package. */
interface Model {
  findByPk(id: number, options: { readonly raw: true }): Promise<Found | null>
}

interface Sequelize {
  define(name: string, columns: object, options: object): Model
  close(): Promise<void>
}

interface Exports {
  readonly Sequelize: new (options: object) => Sequelize
  readonly DataTypes: Readonly<Record<"BOOLEAN" | "DECIMAL" | "INTEGER" | "TEXT", object>>
}

const version = "6.37.8"

const project: Scratch.Project = {
  name: "sequelize",
  dependencies: { sequelize: version },
  entry: `import sequelize from "sequelize"\nexport const { DataTypes, Sequelize } = sequelize\n`
}

/** Sequelize has no prepared statements. Rows as they are, which its documentation says is faster than its objects. */
export const sequelize: Other = {
  name: `Sequelize ${version} replication on pg`,
  atLeast: 1.3,
  connect: ({ application, poolSize, primary, replica }) =>
    Effect.flatMap(Scratch.load<Exports>(project), ({ DataTypes, Sequelize }) =>
      Effect.map(
        Effect.acquireRelease(
          Effect.sync(
            () =>
              new Sequelize({
                dialect: "postgres",
                dialectModule: Pg,
                dialectOptions: { application_name: application },
                replication: { write: partsOf(primary), read: [partsOf(replica)] },
                pool: { max: poolSize },
                logging: false
              })
          ),
          (client) => Effect.promise(() => client.close())
        ),
        (client) => {
          const item = client.define(
            "item",
            {
              id: { type: DataTypes.INTEGER, primaryKey: true },
              name: DataTypes.TEXT,
              price: DataTypes.DECIMAL,
              inStock: { type: DataTypes.BOOLEAN, field: "in_stock" }
            },
            { tableName: "item", timestamps: false }
          )
          return (id) => item.findByPk(id, { raw: true })
        }
      )
    )
}
