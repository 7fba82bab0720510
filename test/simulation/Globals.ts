/**
 * Puts a world's time and chance in the place of Node's while a run lasts: timers, clocks, random numbers, the cryptography
 * that Node does on other threads. What a run may not use throws.
 *
 * It must not import Effect, which notes when it is loaded how the clocks differ: they have to stand still then.
 */
import { createHook } from "node:async_hooks"
import * as Crypto from "node:crypto"
import { createRequire, syncBuiltinESMExports } from "node:module"
import * as Net from "node:net"
import { performance as nodePerformance } from "node:perf_hooks"
import { Chance } from "./Chance.js"
import type { World } from "./World.js"

const real = {
  setImmediate: globalThis.setImmediate
}

/** Whether what begins now is the simulator's own. */
let isOwn = false

const own = <A>(run: () => A): A => {
  const before = isOwn
  isOwn = true
  try {
    return run()
  } finally {
    isOwn = before
  }
}

/** Node's own turns, for what drives a run. */
export const defer = (turn: () => void): void => own(() => void real.setImmediate(turn))

const forbidden = (what: string) => () => {
  throw new Error(`A simulated run has used ${what}`)
}

/** What `setTimeout` and `setImmediate` return. */
class Timer {
  private isReferenced = true
  cancel: () => void = () => {}
  start: () => void = () => {}

  ref(): this {
    this.isReferenced = true
    return this
  }

  unref(): this {
    this.isReferenced = false
    return this
  }

  hasRef(): boolean {
    return this.isReferenced
  }

  refresh(): this {
    this.cancel()
    this.start()
    return this
  }

  close(): this {
    this.cancel()
    return this
  }

  [Symbol.dispose](): void {
    this.cancel()
  }
}

type Callback = (...args: ReadonlyArray<unknown>) => void

/** The longest delay of a timer; a longer one is 1 ms. */
const longest = 2 ** 31 - 1

const makeTimers = (world: World) => {
  const chance = world.chance.fork("timers")
  // Node keeps a list for each length.
  const lastOf = new Map<number, number>()
  let lastImmediate = 0
  const schedule = (delay: number, run: () => void): (() => void) => {
    const length = delay >= 1 && delay <= longest ? Math.trunc(delay) : 1
    const due = Math.max(world.now + length + chance.next() * 0.9, lastOf.get(length) ?? 0)
    lastOf.set(length, due + 1e-6)
    let cancel = world.at(due, function fire() {
      const moment = world.noticed(due)
      if (moment > world.now) cancel = world.at(moment, fire)
      else run()
    })
    return () => cancel()
  }
  const timeout = (callback: Callback, delay = 1, ...args: ReadonlyArray<unknown>): Timer => {
    const timer = new Timer()
    timer.start = () => {
      timer.cancel = schedule(Number(delay), () => callback(...args))
    }
    timer.start()
    return timer
  }
  const interval = (callback: Callback, delay = 1, ...args: ReadonlyArray<unknown>): Timer => {
    const timer = new Timer()
    timer.start = () => {
      timer.cancel = schedule(Number(delay), () => {
        timer.start()
        callback(...args)
      })
    }
    timer.start()
    return timer
  }
  const immediate = (callback: Callback, ...args: ReadonlyArray<unknown>): Timer => {
    const timer = new Timer()
    lastImmediate = Math.max(world.now + chance.next() * 0.05, lastImmediate + 1e-6)
    timer.cancel = world.at(lastImmediate, () => callback(...args))
    return timer
  }
  const clear = (timer: unknown) => {
    if (timer instanceof Timer) timer.cancel()
  }
  return {
    setTimeout: timeout,
    setInterval: interval,
    setImmediate: immediate,
    clearTimeout: clear,
    clearInterval: clear,
    clearImmediate: clear
  }
}

/** The functions that the driver's SCRAM uses, answered at once. */
const makeSubtle = () => {
  const keys = new WeakMap<object, Buffer>()
  const bytesOf = (data: ArrayBuffer | Uint8Array) =>
    data instanceof Uint8Array ? Buffer.from(data) : Buffer.from(data)
  const bufferOf = (bytes: Buffer): ArrayBuffer => Uint8Array.from(bytes).buffer
  return {
    importKey: async (_format: string, data: ArrayBuffer | Uint8Array) => {
      const key = {}
      keys.set(key, bytesOf(data))
      return key
    },
    sign: async (_algorithm: string, key: object, data: Uint8Array) =>
      bufferOf(Crypto.createHmac("sha256", keys.get(key)!).update(data).digest()),
    digest: async (_algorithm: string, data: ArrayBuffer | Uint8Array) =>
      bufferOf(Crypto.createHash("sha256").update(bytesOf(data)).digest()),
    deriveBits: async ({ iterations, salt }: { readonly salt: Uint8Array; readonly iterations: number }, key: object) =>
      bufferOf(own(() => Crypto.pbkdf2Sync(keys.get(key)!, salt, iterations, 32, "sha256")))
  }
}

const require = createRequire(import.meta.url)
const cryptoExports = require("node:crypto") as { randomBytes: unknown }

/**
 * Stops the clocks while modules are loaded: Effect notes then how its clocks differ, to the nanosecond, which must be the same
 * in every process. Returns what has them go again.
 */
export const stopClocks = (): (() => void) => {
  if (Object.keys(globalThis).some((key) => key.startsWith("effect/"))) throw new Error("Effect is loaded already")
  const before = {
    now: Date.now,
    performanceNow: nodePerformance.now,
    bigint: process.hrtime.bigint,
    random: Math.random
  }
  const chance = new Chance("while loading")
  Date.now = () => 0
  nodePerformance.now = () => 0
  process.hrtime.bigint = () => 0n
  Math.random = () => chance.next()
  return () => {
    Date.now = before.now
    nodePerformance.now = before.performanceNow
    process.hrtime.bigint = before.bigint
    Math.random = before.random
  }
}

/** What Node does by itself between two turns of a run, without time, threads or the outside. */
const ownTurns = new Set(["PROMISE", "TickObject", "Microtask"])

/** Ends the run when anything begins that Node does in real time: a timer, a file, a socket, a thread. */
const watch = (world: World): (() => void) => {
  const hook = createHook({
    init: (_, type) => {
      if (ownTurns.has(type) || isOwn) return
      const { stack } = new Error(`A simulated run has used what is real: ${type}`)
      world.halt(new Error(stack))
    }
  }).enable()
  return () => void hook.disable()
}

/** Installs the world; returns what puts everything back. `isStrict` looks at who asks for chance, too. */
export const install = (world: World, isStrict: boolean): (() => void) => {
  const undo: Array<() => void> = []
  const replace = (target: object, name: string, value: unknown) => {
    const before = Object.getOwnPropertyDescriptor(target, name)
    Object.defineProperty(target, name, { configurable: true, writable: true, enumerable: true, value })
    undo.push(() => {
      if (before === undefined) Reflect.deleteProperty(target, name)
      else Object.defineProperty(target, name, before)
    })
  }
  for (const [name, value] of Object.entries(makeTimers(world))) replace(globalThis, name, value)
  const chance = world.chance.fork("bytes")
  const RealDate = globalThis.Date
  const now = () => Math.floor(world.date)
  class VirtualDate extends RealDate {
    constructor(...args: ReadonlyArray<unknown>) {
      if (args.length === 0) super(now())
      else super(...(args as [number]))
    }
    static override now = now
  }
  replace(globalThis, "Date", VirtualDate)
  replace(nodePerformance, "now", () => world.now)
  // Effect numbers objects by chance to find them again in its maps, and spans; nothing else may. The stack is what tells, and
  // takes time. An object keeps its number over several runs, so all get the same one.
  replace(Math, "random", () => {
    if (isStrict && !/effect\/.*(Hash|tracer)\./.test(new Error().stack ?? "")) forbidden("Math.random")()
    return 0.5
  })
  // Effect keeps the function itself.
  replace(process.hrtime, "bigint", () => BigInt(Math.floor(world.now * 1e6)))
  const fill = <A extends Uint8Array>(target: A): A => {
    chance.bytes(target)
    return target
  }
  replace(Crypto.webcrypto, "getRandomValues", fill)
  replace(Crypto.webcrypto, "randomUUID", forbidden("crypto.randomUUID"))
  for (const [name, value] of Object.entries(makeSubtle())) replace(Crypto.webcrypto.subtle, name, value)
  replace(cryptoExports, "randomBytes", (size: number) => fill(Buffer.alloc(size)))
  replace(Net.Socket.prototype, "connect", forbidden("a real socket"))
  syncBuiltinESMExports()
  if (isStrict) undo.push(watch(world))
  return () => {
    for (const step of undo.reverse()) step()
    syncBuiltinESMExports()
  }
}
