/**
 * The terminal: progress lines, and a block of lines that is redrawn in place.
 */
import { Terminal } from "@effect/platform"
import { Config, Duration, Effect, Exit } from "effect"
import type { Format, Paint, Style } from "./Table.js"

const codes: Record<Style, number> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 }

const esc = "\u001b["

const variable = (name: string) => Config.withDefault(Config.string(name), "")

export class Screen extends Effect.Service<Screen>()("demo/Screen", {
  scoped: Effect.gen(function* () {
    const terminal = yield* Terminal.Terminal
    const interactive = (yield* terminal.isTTY) && (yield* variable("TERM")) !== "dumb"
    const colours = interactive && (yield* variable("NO_COLOR")) === ""
    const paint: Paint = (style, text) => (colours && text !== "" ? `${esc}${codes[style]}m${text}${esc}0m` : text)
    // The demo ends when its output has no reader any more (`npm run demo | head`).
    const write = (text: string) => Effect.catchAll(terminal.display(text), () => Effect.interrupt)

    const format = Effect.map(
      Effect.all([terminal.columns, terminal.rows]),
      ([columns, rows]): Format =>
        interactive && columns > 0
          ? // One column and one row less, so that no terminal wraps a line or scrolls.
            { paint, width: Math.min(columns - 1, 160), height: rows - 1 }
          : { paint, width: 99, height: 40 }
    )

    const text = (lines: ReadonlyArray<string>, end: string) => lines.map((line) => `${line}${end}\n`).join("")

    let drawn = 0
    let drawnWidth = 0

    /** Writes lines that stay. */
    const print = (...lines: ReadonlyArray<string>) =>
      Effect.suspend(() => {
        drawn = 0
        return write(text(lines, ""))
      })

    /** Writes lines in place of those that were drawn last, where the terminal can do that. */
    const draw = (lines: ReadonlyArray<string>) =>
      interactive
        ? Effect.flatMap(format, ({ width }) => {
            // Lines that a narrower window has wrapped cannot be counted any more.
            const back = drawn === 0 ? "" : width === drawnWidth ? `\r${esc}${drawn}A` : `${esc}H${esc}2J`
            drawn = lines.length
            drawnWidth = width
            return write(`${back}${text(lines, `${esc}K`)}${esc}J`)
          })
        : print(...lines)

    if (interactive) {
      yield* Effect.acquireRelease(write(`${esc}?25l`), () => write(`${esc}?25h`))
    }

    const tick = (text: string) => print(` ${paint("green", "✓")} ${text}`)

    return {
      interactive,
      draw,
      print,
      tick,
      paint,
      format,
      /** Shows that something is done, how long it took, and what came of it. */
      step: <A, E, R>(
        title: string,
        effect: Effect.Effect<A, E, R>,
        result?: (a: A) => string
      ): Effect.Effect<A, E, R> =>
        Effect.zipRight(
          interactive ? write(` ${paint("dim", `… ${title}`)}`) : Effect.void,
          Effect.timed(Effect.exit(effect)).pipe(
            Effect.onInterrupt(() => (interactive ? write("\n") : Effect.void)),
            Effect.flatMap(([took, exit]) => {
              const back = interactive ? `\r${esc}K` : ""
              const seconds = paint("dim", ` ${(Duration.toMillis(took) / 1000).toFixed(1)} s`)
              const text = Exit.isSuccess(exit) && result !== undefined ? `${title}: ${result(exit.value)}` : title
              const mark = Exit.isSuccess(exit) ? paint("green", "✓") : paint("red", "✗")
              return Effect.zipRight(write(`${back} ${mark} ${text}${seconds}\n`), exit)
            })
          )
        )
    } as const
  })
}) {}
