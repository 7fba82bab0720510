import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import axe from "axe-core"
import { Context, Effect, Layer, type Scope } from "effect"
import { DbRouter, HttpStatus } from "effect-db-router"
import type { Browser, BrowserContextOptions, Page } from "playwright-core"
import * as Chromium from "../support/chromium.js"
import * as RouterTest from "../support/router.js"
import { served } from "../support/status.js"

const { PgCluster } = RouterTest

class Chrome extends Context.Tag("test/Chrome")<Chrome, Browser>() {}

const services = Layer.mergeAll(PgCluster.layer({ replicas: 2 }), Layer.scoped(Chrome, Chromium.launch))

const desktop = { width: 1280, height: 900 }
const phone = { width: 360, height: 740 }

/** Runs something in the browser. */
const act = <A>(run: () => Promise<A>): Effect.Effect<A> => Effect.promise(run)

interface Visit {
  readonly page: Page
  /** Everything that the console has complained of, and every request that went elsewhere. */
  readonly problems: Array<string>
}

/** Opens a page until the scope closes, and waits for its first answer. */
const open = (url: string, options: BrowserContextOptions = {}): Effect.Effect<Visit, never, Chrome | Scope.Scope> =>
  Effect.gen(function* () {
    const browser = yield* Chrome
    const context = yield* Effect.acquireRelease(
      act(() => browser.newContext({ viewport: desktop, ...options })),
      (context) => act(() => context.close())
    )
    const page = yield* act(() => context.newPage())
    const problems: Array<string> = []
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") problems.push(message.text())
    })
    page.on("pageerror", (error) => problems.push(String(error)))
    page.on("dialog", (dialog) => {
      problems.push(`dialog ${dialog.message()}`)
      void dialog.dismiss()
    })
    page.on("request", (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith("data:")) problems.push(request.url())
    })
    yield* act(() => page.goto(url))
    yield* act(() => page.locator(".server").first().waitFor())
    return { page, problems }
  })

const health = { interval: "200 millis", timeout: "500 millis" } as const

const routed = <A, E, R>(effect: Effect.Effect<A, E, R>, options: RouterTest.Options = {}) =>
  Effect.provide(effect, RouterTest.router({ health, ...options }))

/** The router over the cluster, served with a page. */
const status = (options: HttpStatus.Options = {}) =>
  Effect.flatMap(HttpStatus.make({ refresh: "100 millis", ...options }), served)

/** The card of a server. */
const card = (page: Page, name: string) =>
  page.locator(".server").filter({ has: page.getByRole("heading", { name, exact: true }) })

const overflow = (page: Page) =>
  act(() =>
    page.evaluate(() => {
      const wide = [...document.querySelectorAll("body *")].filter(
        (element) =>
          element.getBoundingClientRect().right > innerWidth + 0.5 && element.closest("summary, svg") === null
      )
      return [document.documentElement.scrollWidth - innerWidth, ...wide.map((element) => element.className)]
    })
  )

const audit = (page: Page) =>
  act(async () => {
    await page.evaluate(axe.source)
    const { violations } = await page.evaluate(() =>
      (globalThis as unknown as { readonly axe: typeof axe }).axe.run(document, {
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
      })
    )
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html}: ${node.failureSummary}`))
  })

const traffic = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE IF NOT EXISTS page_notes (id serial, text text)`
  yield* sql`INSERT INTO page_notes (text) VALUES (${"one"})`
  const read = DbRouter.replica(sql`SELECT text FROM page_notes WHERE id = ${1}`)
  yield* Effect.forkScoped(Effect.forever(Effect.zipRight(Effect.ignore(read), Effect.sleep("10 millis"))))
})

layer(services, { timeout: "3 minutes", excludeTestServices: true })("the page in a browser", (it) => {
  it.scoped("shows the servers, and how one goes and comes back", () =>
    routed(
      Effect.gen(function* () {
        const { replicas } = yield* PgCluster.PgCluster
        yield* traffic
        const { page, problems } = yield* open(yield* status())
        const summary = page.getByRole("status")
        const replica = card(page, "replica1")
        yield* act(() => summary.filter({ hasText: "All 5 servers are up. Writes go to primary." }).waitFor())
        yield* act(() => card(page, "primary").getByText("takes the writes").waitFor())
        yield* act(() =>
          page.locator(".decision", { hasText: "SELECT text FROM page_notes WHERE id = $1" }).first().waitFor()
        )
        const line = replica.locator(".blue path.line")
        yield* replicas[0]!.kill
        yield* act(() => replica.locator(".state.bad", { hasText: "down" }).waitFor())
        yield* act(() => summary.filter({ hasText: "replica1 is down. Writes go to primary." }).waitFor())
        yield* act(() => page.locator(".event", { hasText: "replica1 is down" }).waitFor())
        yield* replicas[0]!.start
        yield* act(() => replica.locator(".state.good", { hasText: "up" }).waitFor())
        yield* act(() => summary.filter({ hasText: "All 5 servers are up." }).waitFor())
        yield* act(() => page.locator(".event", { hasText: "replica1 is up" }).waitFor())
        assert.isAbove(
          ((yield* act(() => line.getAttribute("d"))) ?? "").split("L").length,
          3,
          "a plot of what was polled"
        )
        assert.deepStrictEqual(problems, [])
      })
    )
  )

  it.scoped("drains and undrains by keyboard alone, and keeps the focus", () =>
    routed(
      Effect.gen(function* () {
        const { page, problems } = yield* open(yield* status({ operations: true }))
        const focused = act(() => page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? ""))
        for (let presses = 0; (yield* focused) !== "Drain replica1"; presses++) {
          assert.isBelow(presses, 20, "Tab reaches the button")
          yield* act(() => page.keyboard.press("Tab"))
        }
        yield* act(() => page.keyboard.press("Enter"))
        yield* act(() => card(page, "replica1").locator(".state", { hasText: "draining" }).waitFor())
        assert.strictEqual(yield* focused, "Undrain replica1")
        yield* act(() => page.keyboard.press("Space"))
        yield* act(() => card(page, "replica1").locator(".state.good").waitFor())
        assert.strictEqual(yield* focused, "Drain replica1")
        assert.deepStrictEqual(problems, [])
      })
    )
  )

  it.scoped("has no buttons for servers but those that it was given, and says what has failed", () =>
    routed(
      Effect.gen(function* () {
        const plain = yield* open(yield* status())
        assert.strictEqual(yield* act(() => plain.page.locator(".server button").count()), 0)
        const fail = { label: "Promote", run: Effect.fail(new Error("it is not a good day")) }
        const { page } = yield* open(yield* status({ actions: ({ name }) => (name === "replica2" ? [fail] : []) }))
        assert.strictEqual(yield* act(() => page.locator(".server button").count()), 1)
        yield* act(() => page.getByRole("button", { name: "Promote replica2" }).click())
        yield* act(() => page.getByRole("alert").filter({ hasText: "it is not a good day" }).waitFor())
      })
    )
  )

  it.scoped("stops asking while it is paused, and when it is closed", () =>
    routed(
      Effect.gen(function* () {
        const { page } = yield* open(yield* status())
        let asked = 0
        page.on("request", () => asked++)
        yield* act(() => page.waitForRequest(/status\.json/))
        yield* act(() => page.waitForRequest(/status\.json/))
        yield* act(() => page.getByRole("button", { name: "Pause" }).click())
        yield* act(() => page.waitForTimeout(200))
        asked = 0
        yield* act(() => page.waitForTimeout(500))
        assert.strictEqual(asked, 0)
        yield* act(() => page.getByRole("button", { name: "Pause" }).click())
        yield* act(() => page.waitForRequest(/status\.json/))
      })
    )
  )

  it.scoped("shows names and texts of others as they are", () =>
    Effect.gen(function* () {
      const cluster = yield* PgCluster.PgCluster
      const hostile = `</script><img src=x onerror="alert(1)">'&amp;`
      const long = "a_name_that_does_not_end_".repeat(8)
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const url = yield* status({ title: hostile, description: hostile, operations: true, texts: true })
        yield* sql.unsafe(`SELECT '${hostile.replaceAll("'", "''")}' AS ${long.slice(0, 60)}`)
        const { page, problems } = yield* open(url, { viewport: phone })
        assert.strictEqual(yield* act(() => page.locator("h1").textContent()), hostile)
        assert.strictEqual(yield* act(() => page.title()), hostile)
        assert.deepStrictEqual(yield* act(() => page.locator(".server h3").allTextContents()), [hostile, long])
        yield* act(() => page.locator(".decision summary").first().click())
        assert.include(yield* act(() => page.locator(".decision pre").first().textContent()), "<img src=x onerror=")
        assert.strictEqual(yield* act(() => page.locator("img").count()), 0)
        assert.deepStrictEqual(yield* overflow(page), [0])
        assert.deepStrictEqual(problems, [])
      }).pipe(
        Effect.provide(
          DbRouter.layer({
            groups: {
              default: [{ url: cluster.primary.url, name: hostile }],
              read: [{ url: cluster.replicas[0]!.url, name: long }]
            },
            health
          })
        )
      )
    })
  )

  for (const colorScheme of ["light", "dark"] as const) {
    it.scoped(`is readable, on a phone too, and accessible: ${colorScheme}`, () =>
      routed(
        Effect.gen(function* () {
          const router = yield* DbRouter.DbRouter
          const { replicas } = yield* PgCluster.PgCluster
          yield* traffic
          const url = yield* status({ operations: true, description: "What the router does" })
          for (const viewport of [phone, desktop]) {
            // The audit is a foreign script.
            const { page, problems } = yield* open(url, { colorScheme, viewport, bypassCSP: true })
            const background = act(() => page.evaluate(() => getComputedStyle(document.body).backgroundColor))
            const [red = 0] = (yield* background).match(/\d+/g)?.map(Number) ?? []
            assert.strictEqual(red > 128, colorScheme === "light")
            yield* act(() => page.locator(".decision").first().waitFor())
            assert.deepStrictEqual(yield* overflow(page), [0])
            assert.deepStrictEqual(yield* audit(page), [])
            yield* router.drain("replica2")
            yield* replicas[0]!.freeze
            yield* act(() => card(page, "replica1").locator(".state.bad").waitFor())
            assert.deepStrictEqual(yield* overflow(page), [0])
            assert.deepStrictEqual(yield* audit(page), [])
            yield* replicas[0]!.thaw
            yield* router.undrain("replica2")
            yield* act(() => card(page, "replica1").locator(".state.good").waitFor())
            assert.deepStrictEqual(problems, [])
          }
        })
      )
    )
  }
})
