import { SqlError } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { RouterError } from "effect-db-router"
import {
  acquireFailed,
  isOnlyOfStatement,
  isStandbyRefusal,
  judge,
  ServerLost,
  Unanswered
} from "../../src/internal/driver/failure.js"

const server = (code: string, more: { routine?: string; severity?: string; message?: string } = {}) =>
  new SqlError.SqlError({
    cause: Object.assign(new Error(more.message ?? "said so"), { severity: "ERROR", code, ...more }),
    message: "Failed to execute statement"
  })

const broken = (code: string) => new Unanswered({ cause: server(code).cause, message: "Failed to execute statement" })

const driver = (cause: unknown, message = "Failed to execute statement") => new SqlError.SqlError({ cause, message })

const socket = (code: string) => driver(Object.assign(new Error("socket"), { code, syscall: "read" }))

describe("an error of a replica", () => {
  for (const [what, error, action, suspect] of [
    ["25006", server("25006"), "refused", false],
    ["55000", server("55000"), "refused", false],
    ["55000 of a database that is being dropped", driver(server("55000").cause, acquireFailed), "elsewhere", false],
    ["0A000", server("0A000", { routine: "heap_open" }), "refused", false],
    ["0A000 of a cached plan", server("0A000", { routine: "RevalidateCachedQuery" }), "caller", false],
    ["XX000 of a function that writes", server("XX000", { message: "cannot make new WAL entries" }), "refused", false],
    ["XX000 of anything else", server("XX000"), "elsewhere", true],
    ["40001 of replay", server("40001", { routine: "ProcessRecoveryConflictInterrupt" }), "elsewhere", false],
    ["40001 of replay on PostgreSQL 14 to 16", server("40001", { routine: "ProcessInterrupts" }), "elsewhere", false],
    ["40001 FATAL", server("40001", { severity: "FATAL" }), "elsewhere", false],
    ["40001 of a transaction", server("40001", { routine: "ExecUpdate" }), "caller", false],
    ["40P01", server("40P01"), "elsewhere", false],
    ["57P01", server("57P01", { severity: "FATAL" }), "elsewhere", true],
    ["57P02", server("57P02"), "elsewhere", true],
    ["57P03", server("57P03"), "elsewhere", true],
    ["57P04", server("57P04"), "elsewhere", false],
    ["57P05", server("57P05"), "again", false],
    ["08006", server("08006"), "elsewhere", true],
    ["53300", server("53300"), "elsewhere", true],
    ["53200", server("53200"), "elsewhere", true],
    ["53100", server("53100"), "elsewhere", true],
    ["08P01", server("08P01"), "caller", false],
    ["08P01 that ends the connection", broken("08P01"), "elsewhere", true],
    [
      "XX000 of a transaction that writes",
      server("XX000", { message: "cannot assign TransactionIds" }),
      "refused",
      false
    ],
    ["58030", server("58030"), "elsewhere", true],
    ["57014", server("57014"), "caller", false],
    ["25P03", server("25P03"), "caller", false],
    ["25P04", server("25P04"), "caller", false],
    ["42P01", server("42P01"), "primary", false],
    ["42703", server("42703"), "primary", false],
    ["42883", server("42883"), "primary", false],
    ["42704", server("42704"), "primary", false],
    ["42501", server("42501"), "primary", false],
    ["28000", server("28000"), "primary", false],
    ["28P01", server("28P01"), "primary", false],
    ["3D000", server("3D000"), "primary", false],
    ["42601", server("42601"), "caller", false],
    ["22012", server("22012"), "caller", false],
    ["ECONNREFUSED", socket("ECONNREFUSED"), "elsewhere", true],
    ["ECONNRESET", socket("ECONNRESET"), "elsewhere", true],
    ["a close without a code", driver(new Error("Connection terminated unexpectedly")), "elsewhere", true],
    ["a connection that could not be had", driver(new Error("timeout expired"), acquireFailed), "elsewhere", true],
    ["a busy pool", driver(RouterError.poolBusy("replica", 10, 1_000), acquireFailed), "elsewhere", false],
    ["a server that was lost", driver(new ServerLost("It does not answer")), "elsewhere", false],
    ["a value that cannot be sent", driver(new TypeError("circular")), "caller", false],
    ["a closed router", RouterError.toSqlError(RouterError.routerClosed()), "caller", false]
  ] as const) {
    it(`${what}: ${action}${suspect ? ", suspect" : ""}`, () => {
      const found = judge(error, "replica")
      assert.deepStrictEqual([found.action, found.suspect], [action, suspect])
      assert.isAbove(found.why.length, 0)
    })
  }
})

describe("the same error of the primary", () => {
  for (const code of ["25006", "55000", "0A000", "40001", "40P01", "42P01", "42501", "28000", "3D000"]) {
    it(`${code} is the caller's`, () => {
      assert.deepStrictEqual(judge(server(code), "primary"), { action: "caller", suspect: false, why: code })
    })
  }

  it("57P01 is the server's", () => {
    assert.isTrue(judge(server("57P01"), "primary").suspect)
  })
})

describe("a default isolation that standbys do not have", () => {
  const error = server("0A000", { routine: "GetSerializableTransactionSnapshot" })

  it("is not a reason to remember a text, and has the server looked at", () => {
    assert.deepStrictEqual(judge(error, "replica"), { action: "primary", suspect: true, why: "0A000" })
    assert.isUndefined(isStandbyRefusal(error))
  })

  it("is not one on the primary", () => {
    assert.isFalse(judge(error, "primary").suspect)
  })
})

describe("an error in the server's language", () => {
  it("is not known to leave the connection as it is", () => {
    const severities = ["ERROR", "FEHLER", "FATAL", "ERREUR"].map(
      (severity) => server("22012", { severity }).cause as Error
    )
    assert.deepStrictEqual(severities.map(isOnlyOfStatement), [true, false, false, false])
  })
})
