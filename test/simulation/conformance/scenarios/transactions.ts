/** What transactions see of each other, and how they end. */
import { Effect, Fiber } from "effect"
import { bind, describe, execute, type Probe, parse, sync } from "../Probe.js"
import { open, type Scenario, type Site, scenario, untilItWaits } from "../Site.js"

const each = (probe: Probe, ...sqls: ReadonlyArray<string>) => Effect.forEach(sqls, probe.simple)

const two = (title: string, run: (one: Probe, other: Probe, site: Site) => ReturnType<Scenario["run"]>): Scenario =>
  scenario(title, (site) =>
    Effect.flatMap(Effect.all([open(site.primary), open(site.primary)]), ([one, other]) => run(one, other, site))
  )

/** One session's statement waits for the other's transaction, which ends so. */
const waiting = (
  { primary }: Site,
  one: Probe,
  other: Probe,
  first: ReadonlyArray<string>,
  then: string,
  end: string
): Effect.Effect<ReadonlyArray<ReadonlyArray<string>>, unknown> =>
  Effect.gen(function* () {
    yield* each(other, "BEGIN", ...first)
    const fiber = yield* Effect.fork(one.simple(then))
    yield* Effect.raceFirst(untilItWaits(primary, one, "Lock"), Fiber.await(fiber))
    const isWaiting = (yield* Fiber.poll(fiber))._tag === "None"
    const ended = yield* other.simple(end)
    return [[isWaiting ? "waits" : "does not wait"], ended, yield* Fiber.join(fiber)]
  })

const value = "SELECT writes FROM register WHERE id = 1"

export const transactions: ReadonlyArray<Scenario> = [
  two("read committed sees what others commit while it runs", (one, other) =>
    Effect.gen(function* () {
      yield* each(one, "BEGIN", value)
      yield* other.simple("UPDATE register SET writes = 7 WHERE id = 1")
      return yield* each(one, value, "COMMIT")
    })
  ),
  two("repeatable read sees what there was at its first statement, and its own", (one, other) =>
    Effect.gen(function* () {
      yield* one.simple("BEGIN ISOLATION LEVEL REPEATABLE READ")
      yield* other.simple("UPDATE register SET writes = 7 WHERE id = 1")
      const first = yield* one.values(value)
      yield* other.simple("UPDATE register SET writes = 8 WHERE id = 1")
      yield* other.simple("INSERT INTO register VALUES (9, 'new', 0)")
      yield* other.simple("DELETE FROM register WHERE id = 3")
      yield* one.simple("UPDATE register SET writes = 5 WHERE id = 2")
      return [first, yield* each(one, "SELECT id, writes FROM register ORDER BY id", "COMMIT", value)]
    })
  ),
  two("nothing is seen that is not committed", (one, other) =>
    Effect.gen(function* () {
      yield* each(other, "BEGIN", "UPDATE register SET writes = 7 WHERE id = 1", "DELETE FROM register WHERE id = 2")
      const all = "SELECT id, writes FROM register ORDER BY id"
      return [yield* one.simple(all), yield* other.simple(all), yield* other.simple("ROLLBACK"), yield* one.simple(all)]
    })
  ),
  two("read committed waits for a row, and changes it as it is then", (one, other, site) =>
    Effect.gen(function* () {
      const steps = yield* waiting(
        site,
        one,
        other,
        ["UPDATE register SET writes = writes + 1 WHERE id = 1"],
        "UPDATE register SET writes = writes + 10 WHERE id = 1 RETURNING writes",
        "COMMIT"
      )
      return [steps, yield* one.simple(value)]
    })
  ),
  two("read committed does not change a row that does not fit any more when it gets it", (one, other, site) =>
    waiting(
      site,
      one,
      other,
      ["UPDATE register SET writes = 1 WHERE id = 1"],
      "UPDATE register SET writes = 10 WHERE id = 1 AND writes = 0",
      "COMMIT"
    )
  ),
  two("read committed leaves out a row that is deleted while it waits", (one, other, site) =>
    waiting(
      site,
      one,
      other,
      ["DELETE FROM register WHERE id = 1"],
      "UPDATE register SET writes = 10 WHERE id = 1",
      "COMMIT"
    )
  ),
  two("a row whose change is rolled back is changed by the one that waits", (one, other, site) =>
    waiting(
      site,
      one,
      other,
      ["UPDATE register SET writes = 1 WHERE id = 1"],
      "UPDATE register SET writes = writes + 10 WHERE id = 1 RETURNING writes",
      "ROLLBACK"
    )
  ),
  two("repeatable read fails with 40001 where another one has changed the row", (one, other) =>
    Effect.gen(function* () {
      const outcomes: Array<unknown> = []
      for (const change of ["UPDATE register SET writes = 5 WHERE id = 1", "DELETE FROM register WHERE id = 2"]) {
        for (const own of [
          "UPDATE register SET writes = 9",
          "DELETE FROM register",
          "SELECT id FROM register FOR UPDATE"
        ]) {
          yield* each(one, "BEGIN ISOLATION LEVEL REPEATABLE READ", value)
          const target = change.slice(-1)
          yield* each(other, change)
          outcomes.push(yield* one.simple(own.replace(/( FOR UPDATE)?$/, ` WHERE id = ${target}$1`)))
          outcomes.push(yield* one.simple("COMMIT"))
          yield* each(other, "DELETE FROM register WHERE id = 2", "INSERT INTO register VALUES (2, 'again', 0)")
        }
      }
      return outcomes
    })
  ),
  two("repeatable read that waits for a row fails with 40001 when the other one commits", (one, other, site) =>
    Effect.gen(function* () {
      yield* each(one, "BEGIN ISOLATION LEVEL REPEATABLE READ", value)
      const change = "UPDATE register SET writes = 5 WHERE id = 1"
      const committed = yield* waiting(
        site,
        one,
        other,
        [change],
        "UPDATE register SET writes = 6 WHERE id = 1",
        "COMMIT"
      )
      yield* each(one, "ROLLBACK", "BEGIN ISOLATION LEVEL REPEATABLE READ", value)
      const rolled = yield* waiting(
        site,
        one,
        other,
        [change],
        "UPDATE register SET writes = 6 WHERE id = 1",
        "ROLLBACK"
      )
      return [committed, rolled, yield* one.simple("COMMIT")]
    })
  ),
  two("two that wait for each other are a deadlock, and one of them fails with 40P01", (one, other, site) =>
    Effect.gen(function* () {
      yield* each(one, "BEGIN", "UPDATE register SET writes = 1 WHERE id = 1")
      yield* each(other, "BEGIN", "UPDATE register SET writes = 2 WHERE id = 2")
      const first = yield* Effect.fork(one.simple("UPDATE register SET writes = 1 WHERE id = 2"))
      yield* untilItWaits(site.primary, one, "Lock")
      const second = yield* Effect.fork(other.simple("UPDATE register SET writes = 2 WHERE id = 1"))
      const answers = yield* Effect.all([Fiber.join(first), Fiber.join(second)])
      const ends = yield* Effect.all([one.simple("COMMIT"), other.simple("COMMIT")])
      // Which one fails is chance; what it says in detail are numbers of processes and transactions.
      const shown = answers.map((lines, i) => [lines.map((line) => line.replace(/; detail.*$/s, "")), ends[i]])
      return shown.sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)))
    })
  ),
  two("a key that is there is 23505", (one) =>
    each(
      one,
      "INSERT INTO register VALUES (1, 'again', 0)",
      "BEGIN",
      "INSERT INTO register VALUES (7, 'new', 0)",
      "INSERT INTO register VALUES (7, 'again', 0)",
      "COMMIT",
      "SELECT id FROM register ORDER BY id",
      "UPDATE register SET id = 2 WHERE id = 1",
      "UPDATE register SET id = 8 WHERE id = 1",
      "SELECT id FROM register ORDER BY id"
    )
  ),
  two(
    "a key that another one has inserted is waited for: its commit is 23505, its rollback lets the other in",
    (one, other, site) =>
      Effect.gen(function* () {
        const own = "INSERT INTO register VALUES (7, 'one', 0)"
        const theirs = ["INSERT INTO register VALUES (7, 'other', 0)"]
        const rolled = yield* waiting(site, one, other, theirs, own, "ROLLBACK")
        yield* one.simple("DELETE FROM register WHERE id = 7")
        const committed = yield* waiting(site, one, other, theirs, own, "COMMIT")
        yield* one.simple("DELETE FROM register WHERE id = 7")
        const ignoring = yield* waiting(site, one, other, theirs, `${own} ON CONFLICT DO NOTHING`, "COMMIT")
        yield* one.simple("DELETE FROM register WHERE id = 7")
        const updating = `${own} ON CONFLICT (id) DO UPDATE SET writes = register.writes + 1 RETURNING value, writes`
        return [rolled, committed, ignoring, yield* waiting(site, one, other, theirs, updating, "COMMIT")]
      })
  ),
  two("a key that is missing, or a row that is used, is found when the transaction commits", (one) =>
    each(
      one,
      "BEGIN",
      "INSERT INTO child VALUES (1, 5)",
      "SELECT parent FROM child",
      "COMMIT",
      "SELECT parent FROM child",
      "BEGIN",
      "INSERT INTO child VALUES (1, 5)",
      "INSERT INTO parent VALUES (5, 'p')",
      "COMMIT",
      "INSERT INTO child VALUES (2, 6)",
      "DELETE FROM parent WHERE id = 5",
      "BEGIN",
      "DELETE FROM parent WHERE id = 5",
      "DELETE FROM child WHERE parent = 5",
      "COMMIT",
      "BEGIN",
      "INSERT INTO child VALUES (3, 7)",
      "SET CONSTRAINTS ALL IMMEDIATE",
      "ROLLBACK",
      "INSERT INTO child VALUES (4, NULL)"
    )
  ),
  two("savepoints are a stack of what can be undone", (one) =>
    each(
      one,
      "BEGIN",
      "INSERT INTO entry VALUES ('a', 'f')",
      "SAVEPOINT s",
      "INSERT INTO entry VALUES ('b', 'f')",
      "SAVEPOINT t",
      "INSERT INTO entry VALUES ('c', 'f')",
      "ROLLBACK TO t",
      "INSERT INTO entry VALUES ('d', 'f')",
      "ROLLBACK TO s",
      "ROLLBACK TO t",
      "ROLLBACK TO s",
      "INSERT INTO entry VALUES ('e', 'f')",
      "RELEASE s",
      "RELEASE s",
      "COMMIT",
      "SELECT op FROM entry ORDER BY op"
    )
  ),
  two("a failed transaction goes on from a savepoint", (one) =>
    each(
      one,
      "BEGIN",
      "INSERT INTO entry VALUES ('a', 'f')",
      "SAVEPOINT s",
      "SELECT 1 / 0",
      "RELEASE s",
      "ROLLBACK TO s",
      "INSERT INTO entry VALUES ('b', 'f')",
      "COMMIT",
      "SELECT op FROM entry ORDER BY op"
    )
  ),
  two("siblings of savepoints: what is rolled back takes later ones with it", (one) =>
    each(
      one,
      "BEGIN",
      "SAVEPOINT a",
      "SAVEPOINT b",
      "INSERT INTO entry VALUES ('b', 'f')",
      "ROLLBACK TO a",
      "RELEASE b",
      "ROLLBACK"
    )
  ),
  two("the same name of a savepoint twice means the later one", (one) =>
    each(
      one,
      "BEGIN",
      "SAVEPOINT s",
      "INSERT INTO entry VALUES ('a', 'f')",
      "SAVEPOINT s",
      "INSERT INTO entry VALUES ('b', 'f')",
      "ROLLBACK TO s",
      "RELEASE s",
      "SELECT op FROM entry",
      "ROLLBACK TO s",
      "SELECT op FROM entry",
      "COMMIT"
    )
  ),
  two("savepoints are refused outside of transactions", (one) =>
    each(one, "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s", "SELECT 1; SAVEPOINT s", "SELECT 1; RELEASE s")
  ),
  two("rolling back to a savepoint gives back the rows that were locked since", (one, other) =>
    Effect.gen(function* () {
      yield* each(other, "BEGIN", "SAVEPOINT s", "UPDATE register SET writes = 1 WHERE id = 1")
      const busy = yield* one.simple("SELECT id FROM register WHERE id = 1 FOR UPDATE NOWAIT")
      yield* other.simple("ROLLBACK TO s")
      return [
        busy,
        yield* one.simple("SELECT id FROM register WHERE id = 1 FOR UPDATE NOWAIT"),
        yield* other.simple("COMMIT")
      ]
    })
  ),
  two("a statement that fails in a transaction keeps the rows locked that came before", (one, other) =>
    Effect.gen(function* () {
      yield* each(other, "BEGIN", "UPDATE register SET writes = 1 WHERE id = 1", "SELECT 1 / 0")
      const failed = yield* one.simple("SELECT id FROM register WHERE id = 1 FOR UPDATE NOWAIT")
      yield* other.simple("ROLLBACK")
      return [failed, yield* one.simple("SELECT id FROM register WHERE id = 1 FOR UPDATE NOWAIT")]
    })
  ),
  two("FOR UPDATE waits, is refused, or leaves out what is locked", (one, other, site) =>
    Effect.gen(function* () {
      yield* each(other, "BEGIN", "SELECT id FROM register WHERE id = 1 FOR UPDATE")
      const some = yield* each(
        one,
        "SELECT id FROM register WHERE id = 1",
        "SELECT id FROM register WHERE id = 1 FOR UPDATE NOWAIT",
        "SELECT id FROM register ORDER BY id FOR UPDATE SKIP LOCKED"
      )
      yield* other.simple("ROLLBACK")
      const changed = yield* waiting(
        site,
        one,
        other,
        ["UPDATE register SET writes = 3 WHERE id = 1"],
        "SELECT writes FROM register WHERE id = 1 FOR UPDATE",
        "COMMIT"
      )
      return [some, changed]
    })
  ),
  two("a read-only transaction refuses to write, and stays read-only", (one) =>
    each(
      one,
      "BEGIN READ ONLY",
      "SELECT count(*) FROM entry",
      "INSERT INTO entry VALUES ('a', 'f')",
      "ROLLBACK",
      "BEGIN READ ONLY",
      "SELECT id FROM register FOR UPDATE",
      "ROLLBACK",
      "BEGIN READ ONLY",
      "SHOW transaction_read_only",
      "SET TRANSACTION READ WRITE",
      "INSERT INTO entry VALUES ('a', 'f')",
      "COMMIT",
      "BEGIN READ ONLY",
      "SELECT 1",
      "SET TRANSACTION READ WRITE",
      "ROLLBACK",
      "BEGIN READ ONLY; UPDATE register SET writes = 1",
      "ROLLBACK",
      "BEGIN READ ONLY; DELETE FROM register",
      "ROLLBACK",
      "BEGIN READ ONLY; COPY entry FROM STDIN",
      "ROLLBACK",
      "BEGIN READ ONLY; SELECT pg_notify('news', 'a')",
      "ROLLBACK"
    )
  ),
  two("the isolation of a transaction can be said until it has run a query", (one) =>
    each(
      one,
      "SHOW transaction_isolation",
      "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
      "SHOW transaction_isolation",
      "SHOW transaction_read_only",
      "COMMIT",
      "BEGIN",
      "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
      "SHOW transaction_isolation",
      "SELECT 1",
      "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
      "ROLLBACK",
      "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
      "SHOW transaction_isolation",
      "INSERT INTO entry VALUES ('a', 'f')",
      "BEGIN READ WRITE",
      "SHOW transaction_isolation",
      "COMMIT",
      "SET default_transaction_isolation = 'serializable'",
      "SHOW default_transaction_isolation",
      "SET TRANSACTION READ ONLY",
      "DISCARD ALL",
      "SHOW transaction_isolation"
    )
  ),
  two("commands of transactions that have nothing to end, or to begin, are warnings", (one) =>
    each(
      one,
      "COMMIT",
      "ROLLBACK",
      "BEGIN",
      "BEGIN",
      "COMMIT",
      "SET LOCAL app.mark = 'a'",
      "SELECT 1; COMMIT",
      "SELECT 1; ROLLBACK"
    )
  ),
  two("the tag of COMMIT says ROLLBACK where the transaction has failed", (one) =>
    Effect.gen(function* () {
      yield* each(one, "BEGIN", "INSERT INTO entry VALUES ('a', 'f')", "SELECT 1 / 0")
      return [yield* one.run("COMMIT"), yield* one.simple("SELECT count(*) FROM entry")]
    })
  ),
  two("tags say how many rows a statement has changed", (one) =>
    each(
      one,
      "UPDATE register SET writes = writes + 1",
      "UPDATE register SET writes = 0 WHERE id = 99",
      "UPDATE register SET value = 'x' WHERE id IN (1, 2) RETURNING id, value",
      "INSERT INTO entry VALUES ('a', 'f')",
      "INSERT INTO entry VALUES ('b', 'f'), ('c', 'f') RETURNING op",
      "INSERT INTO register VALUES (1, 'x', 0) ON CONFLICT DO NOTHING",
      "INSERT INTO register VALUES (1, 'y', 4) ON CONFLICT (id) DO UPDATE SET value = excluded.value RETURNING value, writes",
      "DELETE FROM entry WHERE op = 'a' RETURNING op",
      "DELETE FROM entry WHERE op = 'z'",
      "SELECT id FROM register WHERE id = 99",
      "BEGIN; SAVEPOINT s; ROLLBACK TO s; RELEASE s; COMMIT",
      "LISTEN a",
      "UNLISTEN a",
      "NOTIFY a",
      "SET app.mark = 'a'",
      "RESET app.mark",
      "SHOW app.mark",
      "DEALLOCATE ALL",
      "DISCARD PLANS",
      "DISCARD ALL"
    )
  ),
  two("a prepared statement whose table has changed is 0A000 where it would return something else", (one, other) =>
    Effect.gen(function* () {
      const run = one.ask(bind("", "s", ["1"]), execute(""), sync)
      yield* one.simple("DROP TABLE IF EXISTS changing")
      yield* each(one, "CREATE TABLE changing (id int4 PRIMARY KEY, a int4)", "INSERT INTO changing VALUES (1, 5)")
      const first = yield* one.ask(
        parse("s", "SELECT * FROM changing WHERE id = $1"),
        bind("", "s", ["1"]),
        execute(""),
        sync
      )
      yield* other.simple("ALTER TABLE changing ADD COLUMN b text")
      const stale = [yield* run, yield* one.ask(describe("S", "s"), sync), yield* run]
      const again = yield* one.ask(
        parse("t", "SELECT * FROM changing WHERE id = $1"),
        bind("", "t", ["1"]),
        execute(""),
        sync
      )
      const named = yield* one.ask(
        parse("u", "SELECT id FROM changing WHERE id = $1"),
        bind("", "u", ["1"]),
        execute(""),
        sync
      )
      yield* other.simple("ALTER TABLE changing ADD COLUMN c text")
      const still = yield* one.ask(bind("", "u", ["1"]), execute(""), sync)
      yield* other.simple("DROP TABLE changing")
      return [first, stale, again, named, still, yield* one.ask(bind("", "u", ["1"]), execute(""), sync)]
    })
  ),
  two("tables are made and changed by transactions, too", (one, other) =>
    Effect.gen(function* () {
      const steps = yield* each(
        one,
        "BEGIN",
        "CREATE TABLE made (id int4 PRIMARY KEY)",
        "INSERT INTO made VALUES (1)",
        "SELECT id FROM made"
      )
      const unseen = yield* other.simple("SELECT id FROM made")
      const rolled = yield* each(
        one,
        "ROLLBACK",
        "SELECT id FROM made",
        "DROP TABLE made",
        "ALTER TABLE made ADD COLUMN a text"
      )
      return [steps, unseen, rolled, yield* one.simple("CREATE TABLE register (id int4)")]
    })
  )
]
