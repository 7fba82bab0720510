/** Servers and their log: what is replayed, who is the primary, and what becomes of sessions when that changes. */
import { Effect, Fiber } from "effect"
import { type Probe, query } from "../Probe.js"
import { lastScenario, type Node, open, type Scenario, scenario, until, untilItWaits } from "../Site.js"
import { connecting } from "./sessions.js"

const each = (probe: Probe, ...sqls: ReadonlyArray<string>) => Effect.forEach(sqls, probe.simple)

const count = "SELECT count(*) FROM entry"

const add = (op: string) => `INSERT INTO entry VALUES ('${op}', 'f')`

const only = (values: ReadonlyArray<string>): string => values[0] ?? ""

/** Whether a standby has replayed a position of the primary. */
const hasReplayed = (standby: Probe, position: string) =>
  Effect.map(standby.values(`SELECT pg_last_wal_replay_lsn() >= '${position}'::pg_lsn AS has`), only)

const position = (primary: Probe) => Effect.map(primary.values("SELECT pg_current_wal_insert_lsn()"), only)

/** Asks again until it connects, or is refused by a server that is there. */
const answering = (node: Node) =>
  until(connecting(node), (answer) => JSON.stringify(answer)?.includes("ECONNREFUSED") !== true)

const timeline = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS timeline"

export const servers: ReadonlyArray<Scenario> = [
  scenario("a standby whose replay is paused shows nothing new, and goes on where it was", (site) =>
    Effect.gen(function* () {
      const [primary, replica, other] = yield* Effect.all([open(site.primary), open(site.replica), open(site.other)])
      yield* site.replica.pauseReplay
      const before = yield* position(primary)
      yield* primary.simple(add("a"))
      const after = yield* position(primary)
      const grows = yield* primary.values(`SELECT '${after}'::pg_lsn > '${before}'::pg_lsn AS grows`)
      yield* until(other.values(count), ([one]) => one === "1")
      const paused = [yield* replica.values(count), yield* hasReplayed(replica, after)]
      const received = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn() AS waits"
      const waits = yield* until(replica.values(received), ([is]) => is === "t")
      yield* site.replica.resumeReplay
      // A position just past the header of a page is reached with the next record.
      yield* primary.simple(add("b"))
      yield* site.settled
      return [grows, paused, waits, yield* replica.values(count), yield* hasReplayed(replica, after)]
    })
  ),
  scenario("a statement that changes nothing leaves no commit in the log", (site) =>
    Effect.gen(function* () {
      const primary = yield* open(site.primary)
      const moved = (sql: string) =>
        Effect.gen(function* () {
          const before = yield* position(primary)
          yield* primary.simple(sql)
          return yield* primary.values(`SELECT pg_current_wal_insert_lsn() > '${before}'::pg_lsn AS moved`)
        })
      return yield* Effect.forEach(
        [
          "SELECT 1",
          "UPDATE register SET writes = 1 WHERE id = 99",
          add("a"),
          "BEGIN; COMMIT",
          "BEGIN; SELECT 1; ROLLBACK"
        ],
        moved
      )
    })
  ),
  scenario("a transaction has a number once it has written", (site) =>
    Effect.gen(function* () {
      const primary = yield* open(site.primary)
      const has = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL AS has"
      return yield* each(primary, "BEGIN", "SELECT count(*) FROM register", has, add("a"), has, "COMMIT", has)
    })
  ),
  scenario("a commit waits for as many standbys as it has to, and no read does", (site) =>
    Effect.gen(function* () {
      const [one, two, reader] = yield* Effect.all([open(site.primary), open(site.primary), open(site.primary)])
      yield* site.setSynchronous(1)
      yield* Effect.addFinalizer(() => site.setSynchronous(0))
      const quick = yield* one.simple(add("a"))
      yield* site.replica.freeze
      const withOne = yield* one.simple(add("b"))
      yield* site.other.freeze
      yield* Effect.addFinalizer(() => Effect.all([site.replica.thaw, site.other.thaw], { discard: true }))
      const read = yield* one.simple(count)
      const local = yield* each(two, "SET synchronous_commit = 'local'", add("c"), "RESET synchronous_commit")
      const fiber = yield* Effect.fork(one.simple(add("d")))
      yield* untilItWaits(site.primary, one, "IPC")
      const unseen = yield* reader.values(count)
      yield* site.other.thaw
      const done = yield* Fiber.join(fiber)
      return [quick, withOne, read, local, unseen, done, yield* reader.values(count)]
    })
  ),
  scenario("a commit that is cancelled while it waits for a standby is done, and warns", (site) =>
    Effect.gen(function* () {
      const [one, two] = yield* Effect.all([open(site.primary), open(site.primary)])
      yield* site.setSynchronous(1)
      yield* Effect.addFinalizer(() => site.setSynchronous(0))
      yield* Effect.all([site.replica.freeze, site.other.freeze])
      yield* Effect.addFinalizer(() => Effect.all([site.replica.thaw, site.other.thaw], { discard: true }))
      one.send(query(add("a")))
      yield* untilItWaits(site.primary, one, "IPC")
      yield* two.simple(`SELECT pg_cancel_backend(${one.pid})`)
      const canceled = yield* one.answer
      yield* one.simple("BEGIN")
      yield* one.simple(add("b"))
      one.send(query("COMMIT"))
      yield* untilItWaits(site.primary, one, "IPC")
      yield* two.simple(`SELECT pg_terminate_backend(${one.pid})`)
      const terminated = yield* one.readTo("closed")
      return [canceled, terminated, yield* two.values(count)]
    })
  ),
  scenario("what a replay has to remove ends the queries of a standby that may need it", (site) =>
    Effect.gen(function* () {
      const open1 = open(site.replica)
      const [running, inTransaction, idle, without, primary] = yield* Effect.all([
        open1,
        open1,
        open1,
        open1,
        open(site.primary)
      ])
      running.send(query("SELECT count(*), pg_sleep(20) FROM register WHERE id = 1"))
      yield* inTransaction.simple("BEGIN")
      inTransaction.send(query("SELECT count(*), pg_sleep(20) FROM register WHERE id = 1"))
      yield* each(idle, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM register")
      yield* each(without, "BEGIN", "SELECT count(*) FROM register")
      yield* Effect.forEach([running, inTransaction], (probe) => untilItWaits(site.replica, probe, "Timeout"))
      yield* primary.simple("UPDATE register SET writes = writes + 1")
      yield* primary.simple("DELETE FROM register WHERE id = 3")
      yield* site.vacuum
      return [
        yield* running.answer,
        yield* running.simple("SELECT 1"),
        yield* inTransaction.answer,
        yield* inTransaction.simple("COMMIT"),
        yield* idle.readTo("closed"),
        yield* each(without, "SELECT count(*) FROM register", "COMMIT")
      ]
    })
  ),
  scenario("a primary that is read-only by default refuses to write where nothing else is said", (site) =>
    Effect.gen(function* () {
      const before = yield* open(site.primary)
      yield* site.primary.setReadOnly(true)
      yield* Effect.addFinalizer(() => site.primary.setReadOnly(false))
      const probe = yield* open(site.primary)
      const refused = yield* each(
        probe,
        "SHOW transaction_read_only",
        add("a"),
        "BEGIN READ WRITE",
        add("b"),
        "COMMIT",
        "BEGIN",
        "SHOW transaction_read_only",
        add("c"),
        "ROLLBACK",
        "SELECT pg_is_in_recovery()",
        count
      )
      const older = yield* before.simple(add("d"))
      yield* site.primary.setReadOnly(false)
      return [refused, older, yield* probe.simple(add("e"))]
    })
  ),
  scenario("a standby that stops tells its sessions, refuses connections, and comes back", (site) =>
    Effect.gen(function* () {
      const [idle, running, primary] = yield* Effect.all([open(site.replica), open(site.replica), open(site.primary)])
      yield* idle.simple("BEGIN")
      running.send(query("SELECT pg_sleep(20)"))
      yield* untilItWaits(site.replica, running, "Timeout")
      yield* site.replica.stop
      const told = [yield* idle.readTo("closed"), yield* running.readTo("closed")]
      const refused = yield* connecting(site.replica)
      yield* primary.simple(add("a"))
      yield* site.replica.start
      const again = yield* open(site.replica)
      yield* until(again.values(count), ([one]) => one === "1")
      return [told, refused, yield* again.simple("SELECT pg_is_in_recovery()")]
    })
  ),
  scenario("a standby that starts says so until it is there", (site) =>
    Effect.gen(function* () {
      yield* site.replica.stopToStartSlowly
      const starting = yield* Effect.fork(site.replica.start)
      const first = yield* answering(site.replica)
      yield* Fiber.join(starting)
      return [first, yield* connecting(site.replica)]
    })
  ),
  scenario("a primary that stops says so while it waits for its standbys", (site) =>
    Effect.gen(function* () {
      const one = yield* open(site.primary)
      yield* site.replica.freeze
      yield* Effect.addFinalizer(() => site.replica.thaw)
      yield* one.simple(add("a"))
      const stopping = yield* Effect.fork(site.primary.stop)
      const told = yield* one.readTo("closed")
      const refused = yield* connecting(site.primary)
      yield* site.replica.thaw
      yield* Fiber.join(stopping)
      const down = yield* connecting(site.primary)
      yield* site.primary.start
      const again = yield* open(site.primary)
      return [told, refused, down, yield* again.values(count)]
    })
  ),
  scenario("a primary that is killed says nothing, and has what it has committed when it is back", (site) =>
    Effect.gen(function* () {
      const [idle, open2, running] = yield* Effect.all([open(site.primary), open(site.primary), open(site.primary)])
      yield* idle.simple(add("a"))
      yield* each(open2, "BEGIN", add("b"))
      running.send(query("SELECT pg_sleep(20)"))
      yield* untilItWaits(site.primary, running, "Timeout")
      yield* site.primary.kill
      const ended = [yield* idle.readTo("closed"), yield* open2.readTo("closed"), yield* running.readTo("closed")]
      const refused = yield* connecting(site.primary)
      yield* site.primary.start
      const again = yield* open(site.primary)
      const kept = yield* again.simple("SELECT op FROM entry")
      yield* again.simple(add("c"))
      const replica = yield* open(site.replica)
      yield* until(replica.values(count), ([one]) => one === "2")
      return [ended, refused, kept, yield* again.values(timeline)]
    })
  ),
  lastScenario("a standby that is promoted writes, on a timeline of its own, and the others can follow it", (site) =>
    Effect.gen(function* () {
      const [primary, replica, other] = yield* Effect.all([open(site.primary), open(site.replica), open(site.other)])
      const receives = "SELECT received_tli FROM pg_stat_wal_receiver"
      yield* primary.simple(add("a"))
      yield* site.settled
      const before = [yield* replica.values(receives), yield* primary.values(timeline)]
      const reader = yield* open(site.replica)
      yield* each(reader, "BEGIN", count)
      yield* site.replica.promote
      const inside = yield* each(reader, "SHOW transaction_read_only", add("x"), "ROLLBACK")
      const promoted = yield* each(
        replica,
        "SELECT pg_is_in_recovery()",
        "SHOW transaction_read_only",
        "SELECT pg_last_wal_replay_lsn() IS NOT NULL AS replayed",
        "SELECT pg_last_wal_receive_lsn() IS NOT NULL AS received",
        "SELECT count(*) FROM pg_stat_wal_receiver",
        timeline,
        add("b"),
        count
      )
      const old = yield* each(primary, add("c"), timeline, "SELECT pg_is_in_recovery()")
      yield* until(other.values("SELECT op FROM entry WHERE op = 'c'"), (found) => found.length === 1)
      const still = yield* other.values(receives)
      yield* site.other.rejoin(site.replica)
      yield* site.primary.rejoin(site.replica)
      const closed = yield* primary.readTo("closed")
      yield* replica.simple(add("d"))
      const followers = yield* Effect.forEach([site.other, site.primary], (node) =>
        Effect.gen(function* () {
          const probe = yield* open(node)
          yield* until(probe.values("SELECT op FROM entry WHERE op = 'd'"), (found) => found.length === 1)
          return yield* each(probe, "SELECT pg_is_in_recovery()", "SELECT op FROM entry ORDER BY op", receives)
        })
      )
      return [before, inside, promoted, old, still, closed.at(-1), followers]
    })
  )
]
