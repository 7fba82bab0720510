/** What the query builders that are here generate by themselves, as `orm-reads.test.ts` does for those that are not. */
import { assert, describe, layer } from "@effect/vitest"
import {
  and,
  arrayContains,
  asc,
  avg,
  between,
  count,
  desc,
  eq,
  exists,
  ilike,
  inArray,
  isNull,
  max,
  not,
  or,
  relations,
  sql,
  sum
} from "drizzle-orm"
import { drizzle } from "drizzle-orm/node-postgres"
import * as D from "drizzle-orm/pg-core"
import { Effect } from "effect"
import { SqlClassifier } from "effect-db-router"
import { PgCluster } from "effect-db-router/testing"
import { DummyDriver, Kysely, sql as k, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler } from "kysely"
import pg from "pg"
import { ormSchema } from "../support/corpus/orms.js"

const orm = D.pgSchema("orm")
const users = orm.table("users", {
  id: D.integer("id").primaryKey(),
  name: D.text("name"),
  email: D.text("email"),
  age: D.integer("age"),
  active: D.boolean("active"),
  tags: D.text("tags").array(),
  meta: D.jsonb("meta"),
  createdAt: D.timestamp("created_at", { withTimezone: true })
})
const posts = orm.table("posts", {
  id: D.integer("id").primaryKey(),
  authorId: D.integer("author_id"),
  title: D.text("title"),
  price: D.numeric("price")
})
const usersRelations = relations(users, ({ many }) => ({ posts: many(posts) }))
const postsRelations = relations(posts, ({ one }) => ({
  author: one(users, { fields: [posts.authorId], references: [users.id] })
}))

const ofDrizzle = (): ReadonlyArray<string> => {
  const db = drizzle({ client: new pg.Pool({ max: 1 }), schema: { users, posts, usersRelations, postsRelations } })
  const active = db.$with("active").as(db.select().from(users).where(eq(users.active, true)))
  const cheap = db
    .select({ id: posts.authorId, most: max(posts.price).as("most") })
    .from(posts)
    .groupBy(posts.authorId)
    .as("cheap")
  const other = D.alias(users, "other")
  const all = [
    db.select().from(users),
    db
      .select({ id: users.id, upper: sql<string>`upper(${users.name})` })
      .from(users)
      .where(eq(users.id, 1))
      .limit(1),
    db
      .select()
      .from(users)
      .where(and(ilike(users.name, "%a%"), or(isNull(users.age), between(users.age, 18, 65)))),
    db
      .select()
      .from(users)
      .where(inArray(users.id, [1, 2, 3]))
      .orderBy(desc(users.createdAt), asc(users.id))
      .offset(10),
    db.selectDistinctOn([users.email]).from(users).orderBy(users.email),
    db.select({ n: count(), sum: sum(posts.price), avg: avg(posts.price) }).from(posts),
    db
      .select({ id: users.id, n: count(posts.id) })
      .from(users)
      .leftJoin(posts, eq(posts.authorId, users.id))
      .groupBy(users.id)
      .having(sql`count(*) > ${1}`),
    db.select().from(users).innerJoin(other, eq(other.id, users.id)).rightJoin(posts, eq(posts.authorId, users.id)),
    db
      .select()
      .from(users)
      .where(exists(db.select().from(posts).where(eq(posts.authorId, users.id)))),
    db
      .select()
      .from(users)
      .where(not(arrayContains(users.tags, ["a"]))),
    db.with(active).select().from(active).innerJoin(cheap, eq(cheap.id, active.id)),
    D.union(db.select({ id: users.id }).from(users), db.select({ id: posts.id }).from(posts)).limit(5),
    db
      .select({ v: sql`${users.meta}->>'a'` })
      .from(users)
      .where(sql`${users.meta} @> ${"{}"}::jsonb`),
    db.select({ rank: sql`row_number() over (partition by ${posts.authorId} order by ${posts.price})` }).from(posts),
    db.query.users.findMany({ with: { posts: { limit: 3, orderBy: desc(posts.id) } }, limit: 10 }),
    db.query.users.findFirst({
      where: eq(users.id, 1),
      columns: { id: true },
      with: { posts: { with: { author: true } } }
    }),
    db.query.posts.findMany({ extras: { low: sql`lower(${posts.title})`.as("low") } })
  ]
  return all.map((query) => query.toSQL().sql)
}

interface Tables {
  readonly "orm.users": {
    id: number
    name: string
    email: string
    age: number
    active: boolean
    created_at: Date
    meta: unknown
  }
  readonly "orm.posts": { id: number; author_id: number; title: string; price: string }
}

const ofKysely = (): ReadonlyArray<string> => {
  const db = new Kysely<Tables>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler()
    }
  })
  const from = db.selectFrom("orm.users as u")
  const joined = from.leftJoin("orm.posts as p", "p.author_id", "u.id")
  const all = [
    from.selectAll(),
    from.select(["u.id", "u.name as n"]).where("u.id", "=", 1).limit(1),
    from
      .selectAll()
      .where((e) => e.or([e("u.age", ">", 18), e("u.name", "is", null)]))
      .orderBy("u.created_at", "desc"),
    from.selectAll().where("u.id", "in", [1, 2, 3]).where("u.email", "ilike", "%a%").offset(5),
    from.select("u.email").distinctOn("u.email").orderBy("u.email"),
    from.select((e) => [e.fn.countAll().as("n"), e.fn.max("u.age").as("oldest"), e.fn.avg("u.age").as("mean")]),
    joined
      .select(["u.id", (e) => e.fn.count("p.id").as("n")])
      .groupBy("u.id")
      .having((e) => e.fn.count("p.id"), ">", 1),
    joined.select((e) => e.fn.coalesce("p.title", k<string>`'none'`).as("title")),
    from
      .selectAll()
      .where((e) => e.exists(e.selectFrom("orm.posts as p").select("p.id").whereRef("p.author_id", "=", "u.id"))),
    from.select((e) => [
      "u.id",
      e.selectFrom("orm.posts as p").select(k`json_agg(p)`.as("all")).whereRef("p.author_id", "=", "u.id").as("posts")
    ]),
    db
      .with("young", (d) => d.selectFrom("orm.users").selectAll().where("age", "<", 30))
      .selectFrom("young")
      .selectAll(),
    db
      .withRecursive("n(i)", (d) =>
        d
          .selectNoFrom(k<number>`1`.as("i"))
          .unionAll(d.selectFrom("n").select(k<number>`i + 1`.as("i")).where("n.i", "<", 5))
      )
      .selectFrom("n")
      .selectAll(),
    from.select("u.id").union(db.selectFrom("orm.posts as p").select("p.id")),
    from.select((e) => [e.case().when("u.active", "=", true).then("yes").else("no").end().as("is")]),
    db.selectFrom("orm.posts as p").select((e) =>
      e.fn
        .agg<number>("rank")
        .over((o) => o.partitionBy("p.author_id").orderBy("p.price"))
        .as("rank")
    ),
    db
      .selectFrom("orm.users as u")
      .innerJoinLateral(
        (e) => e.selectFrom("orm.posts as p").selectAll().whereRef("p.author_id", "=", "u.id").limit(1).as("last"),
        (j) => j.onTrue()
      )
      .select("last.title"),
    db.selectNoFrom((e) => e.exists(e.selectFrom("orm.users").select("id")).as("any"))
  ]
  return all.map((query) => query.compile().sql)
}

describe("the reads that are generated here", () => {
  layer(PgCluster.layer({ replicas: 1 }), { timeout: "2 minutes" })((it) => {
    for (const [sender, generate] of [
      ["Drizzle", ofDrizzle],
      ["Kysely", ofKysely]
    ] as const) {
      it.scoped(`by ${sender} are all reads`, () =>
        Effect.gen(function* () {
          const { awaitReplayed, primary, replicas } = yield* PgCluster.PgCluster
          yield* primary.query(`drop schema if exists orm cascade; ${ormSchema}`)
          yield* awaitReplayed
          const { classify } = yield* SqlClassifier.fromCatalog({
            load: SqlClassifier.readCatalog((sql) => primary.query(sql))
          })
          const texts = generate()
          assert.isAtLeast(new Set(texts).size, 17)
          for (const text of texts) {
            assert.deepInclude(classify(text), { kind: "read" }, text)
            // With any values: it is parsed there, and names what is there.
            const count = Math.max(0, ...[...text.matchAll(/\$(\d+)/g)].map((match) => Number(match[1])))
            yield* replicas[0]!.query(text, new Array(count).fill(null))
          }
        })
      )
    }
  })
})
