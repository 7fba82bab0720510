import { createHash } from "node:crypto"
import { Effect } from "effect"
import type { Find, Found, Other, Servers } from "./Other.js"
import * as Scratch from "./Scratch.js"

/** What is used of the packages. */
interface Client {
  readonly item: Record<"findFirst" | "findUnique", (query: object) => Promise<Found | null>>
  $extends(extension: object): Client
  $disconnect(): Promise<void>
}

interface Exports {
  readonly PrismaClient: new (options: object) => Client
  readonly PrismaPg: new (pool: object, options: object) => object
  readonly readReplicas: (options: { readonly replicas: ReadonlyArray<Client> }) => object
}

const version = "7.10.0"

const schema = `generator client {
  provider     = "prisma-client"
  output       = "./generated"
  engineType   = "client"
  moduleFormat = "esm"
}

datasource db {
  provider = "postgresql"
}

model Item {
  id      Int     @id
  name    String
  price   Decimal
  inStock Boolean @map("in_stock")

  @@map("item")
}
`

const config = `import { defineConfig } from "prisma/config"
export default defineConfig({ schema: "schema.prisma", datasource: { url: "postgresql://localhost" } })
`

const project: Scratch.Project = {
  name: "prisma",
  dependencies: {
    prisma: version,
    "@prisma/client": version,
    "@prisma/adapter-pg": version,
    "@prisma/extension-read-replicas": "0.5.0"
  },
  files: { "schema.prisma": schema, "prisma.config.ts": config },
  prepare: {
    command: ["prisma", "generate"],
    // The engine for migrations, which it would fetch and which nothing here runs.
    env: { PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, CHECKPOINT_DISABLE: "1" }
  },
  entry: `export { PrismaClient } from "./generated/client.ts"
export { PrismaPg } from "@prisma/adapter-pg"
export { readReplicas } from "@prisma/extension-read-replicas"
`
}

const statementNameGenerator = ({ sql }: { readonly sql: string }): string =>
  createHash("sha1").update(sql).digest("hex")

const connect = ({ poolSize, primary, replica }: Servers, findWith: (client: Client) => Find) =>
  Effect.flatMap(Scratch.load<Exports>(project), ({ PrismaClient, PrismaPg, readReplicas }) => {
    const client = (connectionString: string) =>
      Effect.acquireRelease(
        Effect.sync(
          () =>
            new PrismaClient({
              adapter: new PrismaPg({ connectionString, max: poolSize }, { statementNameGenerator })
            })
        ),
        (client) => Effect.promise(() => client.$disconnect())
      )
    return Effect.map(Effect.all([client(primary), client(replica)]), ([primary, replica]) =>
      findWith(primary.$extends(readReplicas({ replicas: [replica] })))
    )
  })

export const prisma: Other = {
  name: `Prisma ${version} read replicas, findFirst`,
  atLeast: 1.3,
  connect: (servers) =>
    connect(
      servers,
      ({ item }) =>
        (id) =>
          item.findFirst({ where: { id } })
    )
}

/** Prisma gathers what is asked for in one tick into one statement. */
export const batched: Other = {
  name: `Prisma ${version} read replicas, findUnique (batched)`,
  atLeast: 1.3,
  connect: (servers) =>
    connect(
      servers,
      ({ item }) =>
        (id) =>
          item.findUnique({ where: { id } })
    )
}
