import { describe } from "@effect/vitest"
import { type Case, isRefused, primary, url, withEngine } from "../support/refusedConfig.js"

const engineCases: ReadonlyArray<Case> = [
  ...[0, -1, Number.NaN, Number.POSITIVE_INFINITY, "3", null].map((weight) => ({
    what: `a weight of ${JSON.stringify(weight)} (${String(weight)})`,
    options: withEngine({ weight }),
    field: "groups.default[0].weight",
    value: typeof weight === "string" ? `"${weight}"` : String(weight),
    remedy: "positive, finite number"
  })),
  ...["", "0", "-1", "heavy", "Infinity"].map((weight) => ({
    what: `a weight of ${JSON.stringify(weight)} in the URL`,
    options: withEngine({ url: url(`postgresql://h/d?weight=${weight}`) }),
    field: "groups.default[0].weight",
    value: weight,
    remedy: "positive, finite number"
  })),
  ...["", "  ", 7].map((name) => ({
    what: `a name of ${JSON.stringify(name)}`,
    options: withEngine({ name }),
    field: "groups.default[0].name",
    value: JSON.stringify(name),
    remedy: "text that is not empty"
  })),
  ...["shop", "", "mysql://app:hunter2@db/shop", "http://db/shop", "postgresql:shop"].map((text) => ({
    what: `the URL ${JSON.stringify(text)}`,
    options: withEngine({ url: url(text) }),
    field: "groups.default[0].url",
    remedy: "must begin with postgresql://"
  })),
  ...[
    "postgresql://app:hun/ter2@db/shop",
    "postgresql://app:12/ter2@db/shop",
    "postgresql://app:hunter2#@db/shop",
    "postgresql://app:12?ter2@db/shop",
    "postgresql://app:12#ter2@db/shop",
    "postgresql://db/shop?application_name=50%",
    "postgresql://app:hunter2%@db/shop",
    "postgresql://app:hunter2%ff@db/shop",
    "postgresql://app:hunter2@db:port/shop",
    "postgresql://app:hunter2@db:99999/shop",
    "postgresql://app:hunter2@d b/shop"
  ].map((text) => ({
    what: `the URL ${JSON.stringify(text)}`,
    options: withEngine({ url: url(text) }),
    field: "groups.default[0].url",
    value: "postgresql://<redacted>",
    remedy: "percent-encode"
  })),
  {
    what: "a URL without a host",
    options: withEngine({ url: url("postgresql:///shop") }),
    field: "groups.default[0].url",
    remedy: "no host"
  },
  ...(
    [
      ["jdbc:postgresql://db/shop?password=hunter2", "for JDBC"],
      ["postgresql+asyncpg://app:hunter2@db/shop", "name of a driver"],
      ['"postgresql://app:hunter2@db/shop"', "It is in quotes"],
      ["host=db password=hunter2 and more", "keywords with something else"],
      ["postgresql:///shop?service=hunter2", "Services"],
      ["postgresql://app:hunter2@db/shop?hostaddr=10.0.0.1", "hostaddr"],
      ["postgresql://app:hunter2@db/shop?replication=database", "no prepared statements"],
      ["postgresql://app:hunter2@db/shop?target_session_attrs=leader", "must be one of any, read-write"],
      ["postgresql://app:hunter2@db/shop?target_session_attrs=standby", 'list it in the group "read"'],
      ["postgresql://app:hunter2@a,,b/shop", "hosts is empty"],
      ["postgresql://app:hunter2@/shop?host=a,b,c&port=1,2", "3 hosts and 2 ports"],
      ["postgresql://app:hunter2@/shop", "no host"]
    ] as const
  ).map(([text, remedy]) => ({
    what: `the URL ${JSON.stringify(text)}`,
    options: withEngine({ url: url(text) }),
    field: "groups.default[0].url",
    remedy
  })),
  {
    what: "a URL with port 0",
    options: withEngine({ url: url("postgresql://a:0/shop") }),
    field: "groups.default[0].url",
    remedy: "from 1 to 65535"
  },
  {
    what: "a URL that says the name twice",
    options: withEngine({ url: url("postgresql://a/shop?name=a&name=b") }),
    field: "groups.default[0].url",
    value: "name",
    remedy: "more than once"
  },
  {
    what: "a URL that is not a secret",
    options: withEngine({ url: "postgresql://app:hunter2@db/shop" }),
    field: "groups.default[0].url",
    value: "<redacted>",
    remedy: "Redacted.make"
  },
  ...Object.entries({ host: "db", port: 5432, database: "shop", username: "app", path: "/run" }).map(
    ([name, value]) => ({
      what: `a URL together with ${name}`,
      options: withEngine({ url: url("postgresql://db/shop"), [name]: value }),
      field: `groups.default[0].${name}`,
      value: String(value),
      remedy: 'together with "url"'
    })
  ),
  {
    what: "a URL together with a password",
    options: withEngine({ url: url("postgresql://db/shop"), password: url("hunter2") }),
    field: "groups.default[0].password",
    value: "<redacted>",
    remedy: 'together with "url"'
  },
  {
    what: "a name in the URL and beside it",
    options: withEngine({ url: url("postgresql://db/shop?name=a"), name: "b" }),
    field: "groups.default[0].name",
    value: '"b"',
    remedy: 'together with "url"'
  },
  {
    what: "TLS in the URL and beside it",
    options: withEngine({ url: url("postgresql://db/shop?sslmode=disable"), ssl: true }),
    field: "groups.default[0].ssl",
    value: "true",
    remedy: 'together with "url"'
  },
  {
    what: "a URL for a host",
    options: withEngine({ host: "postgresql://app:hunter2@db/shop" }),
    field: "groups.default[0].host",
    value: "<redacted>",
    remedy: '"url"'
  },
  {
    what: "a host and a path",
    options: withEngine({ host: "db", path: "/run/postgresql" }),
    field: "groups.default[0].path",
    value: "/run/postgresql",
    remedy: 'together with "host"'
  },
  {
    what: "a path that is not a directory",
    options: withEngine({ path: "run" }),
    field: "groups.default[0].path",
    value: '"run"',
    remedy: "/run/postgresql"
  },
  ...[0, 65_536, 5432.5, "5432", Number.NaN].map((port) => ({
    what: `the port ${JSON.stringify(port)} (${String(port)})`,
    options: withEngine({ port }),
    field: "groups.default[0].port",
    value: String(port),
    remedy: "from 1 to 65535"
  })),
  ...[0, -1, 1.5, "10", Number.POSITIVE_INFINITY].map((maxConnections) => ({
    what: `maxConnections ${JSON.stringify(maxConnections)} (${String(maxConnections)})`,
    options: withEngine({ maxConnections }),
    field: "groups.default[0].maxConnections",
    value: String(maxConnections),
    remedy: "whole number from 1 on"
  })),
  {
    what: "minConnections above maxConnections",
    options: withEngine({ minConnections: 4, maxConnections: 3 }),
    field: "groups.default[0].minConnections",
    value: "4",
    remedy: "maxConnections, which is 3"
  },
  {
    what: "minConnections above the default of maxConnections",
    options: withEngine({ minConnections: 11 }),
    field: "groups.default[0].minConnections",
    value: "11",
    remedy: "which is 10"
  },
  {
    what: "a password that is not a secret",
    options: withEngine({ password: "hunter2" }),
    field: "groups.default[0].password",
    value: "<redacted>",
    remedy: "Redacted.make"
  },
  {
    what: "TLS as text",
    options: withEngine({ ssl: "require" }),
    field: "groups.default[0].ssl",
    value: '"require"',
    remedy: "tls.connect"
  },
  {
    what: "a transform that is not a function",
    options: withEngine({ transformQueryNames: "camelToSnake" }),
    field: "groups.default[0].transformQueryNames",
    value: '"camelToSnake"',
    remedy: "function"
  },
  {
    what: "a misspelt field",
    options: withEngine({ wieght: 3 }),
    field: "groups.default[0].wieght",
    remedy: '"weight"'
  },
  {
    what: "pg's name of a field",
    options: withEngine({ user: "app" }),
    field: "groups.default[0].user",
    remedy: '"username"'
  },
  {
    what: "an unknown field",
    options: withEngine({ colour: "red" }),
    field: "groups.default[0].colour",
    remedy: '"connectTimeout"'
  },
  {
    what: "a text for an engine",
    options: { groups: { default: ["postgresql://app:hunter2@db/shop"] } },
    field: "groups.default[0]",
    value: "<redacted>",
    remedy: '"url"'
  },
  {
    what: "an engine of a group with an odd name",
    options: { groups: { default: [primary], "eu west": [{ weight: 0 }] } },
    field: 'groups["eu west"][0].weight',
    value: "0",
    remedy: "positive"
  }
]

describe("engines that cannot be used are refused with field, value and remedy:", () => {
  engineCases.forEach(isRefused)
})
