/** What users of a connection leave behind on it, and how it is taken away before the next one. */
import type { Leaves } from "../classifier/finding.js"

/** `DISCARD ALL` leaves the seed of `random()`: the next user's would be what this one has chosen. */
const seed =
  "SELECT setseed(('x' || substr(md5(gen_random_uuid()::text), 1, 13))::bit(52)::bigint / 4503599627370496::float8)"

/**
 * What `DISCARD ALL` does, but for prepared statements, and a new seed, in one text: so a server that was told something for every new
 * connection is told it again in the same round trip.
 */
const parts = [
  "RESET SESSION AUTHORIZATION",
  "RESET ALL",
  "CLOSE ALL",
  "UNLISTEN *",
  "SELECT pg_advisory_unlock_all()",
  "DISCARD TEMP",
  "DISCARD SEQUENCES",
  seed
]

const light = parts.join("; ")

const full = `${light}; DEALLOCATE ALL`

/** Reported settings that say nothing of a connection's users. */
const ofServer = "in_hot_standby"

/** What the users of one connection have left behind on it. */
export class Traces {
  private left: "nothing" | "unknown" | "connection" = "nothing"
  /** The settings that the server reports, as they were when the connection was opened. */
  private readonly initial = new Map<string, string>()
  private readonly changed = new Map<string, string>()
  private isOpen = false

  /** A statement runs that leaves something. */
  note({ until }: Leaves): void {
    if (until === "connection" || (until === "unknown" && this.left === "nothing")) this.left = until
  }

  /** The server reports a setting: at the start, and when it changes, whatever has changed it. */
  hear(name: string, value: string): void {
    if (name === ofServer) return
    if (!this.isOpen) this.initial.set(name, value)
    else if (this.initial.get(name) === value) this.changed.delete(name)
    else this.changed.set(name, value)
  }

  /** What has been reported was the beginning. */
  opened(): void {
    this.isOpen = true
  }

  /** The text that takes it all away, and whether prepared statements go with it; `undefined` where there is nothing. */
  get reset(): { readonly text: string; readonly isFull: boolean } | undefined {
    if (this.left === "connection") return { text: full, isFull: true }
    return this.left === "nothing" && this.changed.size === 0 ? undefined : { text: light, isFull: false }
  }

  /** It was taken away. What the server still reports otherwise is its own new configuration. */
  over(): void {
    this.left = "nothing"
    for (const [name, value] of this.changed) this.initial.set(name, value)
    this.changed.clear()
  }
}
