import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Either, Redacted } from "effect"
import * as RouterConfig from "effect-db-router/RouterConfig"
import { parse } from "pg-connection-string"

const resolved = (groups: Record<string, ReadonlyArray<unknown>>) =>
  Either.getOrThrow(RouterConfig.resolve({ groups } as unknown as RouterConfig.Options)).groups

const enginesOf = (url: string, group = "default") =>
  resolved({ default: [{ url: Redacted.make("postgresql://primary/shop") }], [group]: [{ url: Redacted.make(url) }] })
    .get(group)!
    .engines.map(({ known, name }) => ({ name, address: known!.address, url: Redacted.value(known!.client.url!) }))

/** What the driver makes of the URL that it is given. */
const driven = (url: string) => {
  const { database, host, options, password, port, user } = parse(url)
  return { database, host, options, password, port, user }
}

const nothing = { database: null, host: "", options: undefined, password: "", port: "", user: "" }

describe("the address of an engine", () => {
  const rows: ReadonlyArray<readonly [what: string, url: string, driven: Partial<ReturnType<typeof driven>>]> = [
    [
      "with an empty host and the directory of a socket",
      "postgres://u:p@/shop?host=/run/pg&port=5433",
      { user: "u", password: "p", host: "/run/pg", port: "5433", database: "shop" }
    ],
    [
      "with options that hold a space",
      "postgres://u@h/shop?options=-c search_path=a -c work_mem=8MB",
      { user: "u", host: "h", database: "shop", options: "-c search_path=a -c work_mem=8MB" }
    ],
    [
      "with one host in a parameter",
      "postgres://u@/shop?host=h&port=5433",
      { user: "u", host: "h", port: "5433", database: "shop" }
    ],
    [
      "of a socket, as pg writes it",
      "socket://u:p%40@/run/pg?db=shop",
      { user: "u", password: "p@", host: "/run/pg", database: "shop" }
    ],
    ["that is a directory and a database", "/run/pg shop", { host: "/run/pg", database: "shop" }],
    [
      "of keywords",
      String.raw`host=db port=5433 dbname='my shop' user=app password='it\'s a @secret' application_name=x`,
      { user: "app", password: "it's a @secret", host: "db", port: "5433", database: "my shop" }
    ],
    ["in capitals", "POSTGRESQL://u@h/shop", { user: "u", host: "h", database: "shop" }],
    [
      "with libpq's own words for the role and the balance",
      "postgres://u@h/shop?target_session_attrs=read-write&load_balance_hosts=random",
      { user: "u", host: "h", database: "shop" }
    ]
  ]
  for (const [what, url, expected] of rows) {
    it(what, () => {
      const [engine, ...others] = enginesOf(url)
      assert.deepStrictEqual(driven(engine!.url), { ...nothing, ...expected })
      assert.strictEqual(engine!.address.host, expected.host)
      assert.deepStrictEqual(others, [])
    })
  }

  it("with the certificates of the system asks for a full check", () => {
    const { ssl } = parse(enginesOf("postgres://h/shop?sslrootcert=system")[0]!.url)
    assert.deepStrictEqual(ssl, {})
  })
})

describe("an address of several hosts", () => {
  it("is an engine for each, with the same login and parameters", () => {
    const engines = enginesOf("postgres://u:p%2C@a,b:5433,[::1]:5434/shop?application_name=x&target_session_attrs=any")
    assert.deepStrictEqual(
      engines.map(({ name, url }) => [name, url]),
      [
        ["default-1", "postgres://u:p%2C@a/shop?application_name=x"],
        ["default-2", "postgres://u:p%2C@b:5433/shop?application_name=x"],
        ["default-3", "postgres://u:p%2C@[::1]:5434/shop?application_name=x"]
      ]
    )
  })

  it("takes hosts and ports from the parameters, one port for all or one for each", () => {
    const of = (url: string) => enginesOf(url).map(({ address: { host, port } }) => `${host}:${port}`)
    assert.deepStrictEqual(of("postgres://u@/shop?host=a,b&port=5433"), ["a:5433", "b:5433"])
    assert.deepStrictEqual(of("postgres://u@/shop?host=a,/run/pg&port=1,2"), ["a:1", "/run/pg:2"])
    assert.deepStrictEqual(of("host=a,b port=1,2 dbname=shop"), ["a:1", "b:2"])
  })

  it("counts the engines of its group, and keeps the other fields of its entry", () => {
    const engines = resolved({
      default: [{ url: Redacted.make("postgres://a,b/shop"), weight: 2 }, { url: Redacted.make("postgres://c/shop") }]
    }).get("default")!.engines
    assert.deepStrictEqual(
      engines.map(({ name, weight }) => [name, weight]),
      [
        ["default-1", 2],
        ["default-2", 2],
        ["default-3", 1]
      ]
    )
  })

  it("is refused in the group whose role it is not", () => {
    const refused = (group: string, role: string) =>
      Either.isLeft(
        RouterConfig.resolve({
          groups: {
            default: [{ url: Redacted.make("postgres://p/shop") }],
            [group]: [{ url: Redacted.make(`postgres://a,b/shop?target_session_attrs=${role}`) }]
          }
        })
      )
    const roles = ["any", "primary", "read-write", "standby", "read-only", "prefer-standby"]
    assert.deepStrictEqual(
      ["default", "read", "analytics"].map((group) => roles.filter((role) => refused(group, role))),
      [["standby", "read-only", "prefer-standby"], ["primary", "read-write"], []]
    )
  })
})

describe("addresses in the environment", () => {
  const groupsFrom = (variables: Record<string, string>) =>
    Effect.flatMap(RouterConfig.fromEnv, RouterConfig.resolve).pipe(
      Effect.map(({ groups }) =>
        Object.fromEntries(
          [...groups].map(([name, { engines }]) => [
            name,
            engines.map(({ known }) => `${known!.address.host}:${known!.address.port ?? ""}`)
          ])
        )
      ),
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables))))
    )

  it.effect("several hosts of one URL are engines, in every variable", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* groupsFrom({
          DATABASE_URL: "postgres://u:p,x@a:1,b:2/shop?target_session_attrs=read-write",
          DATABASE_REPLICA_URLS:
            "postgres://u:p@c,d/shop?target_session_attrs=standby, postgres://e, postgres://u@/shop?host=f,g&port=1,2,postgres://h/shop?application_name=i",
          DATABASE_GROUPS: "olap",
          DATABASE_OLAP_URLS: "host=i,j dbname=shop"
        }),
        {
          default: ["a:1", "b:2"],
          read: ["c:", "d:", "e:", "f:1", "g:2", "h:"],
          olap: ["i:", "j:"]
        }
      )
    })
  )

  it.effect("a list says which of its URLs is wrong, and shows no part of it", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        groupsFrom({ DATABASE_URL: "postgres://p", DATABASE_REPLICA_URLS: "postgres://a,b/x,mysql://u:hunter2@c/y" })
      )
      assert.include(String(error), "DATABASE_REPLICA_URLS[1]")
      assert.notInclude(String(error), "hunter2")
    })
  )
})
