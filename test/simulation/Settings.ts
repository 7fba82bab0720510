/** The settings of a session, and those that the client is told. */
import { type Details, PgError } from "./PgError.js"

/** What a session has when nothing was said, by its name in small letters. */
const defaults: Readonly<Record<string, string>> = {
  server_version_num: "180004",
  server_version: "18.4",
  server_encoding: "UTF8",
  client_encoding: "UTF8",
  integer_datetimes: "on",
  standard_conforming_strings: "on",
  datestyle: "ISO, MDY",
  intervalstyle: "postgres",
  timezone: "UTC",
  is_superuser: "off",
  scram_iterations: "4096",
  default_transaction_isolation: "read committed",
  default_transaction_read_only: "off",
  default_transaction_deferrable: "off",
  transaction_deferrable: "off",
  synchronous_commit: "on",
  search_path: '"$user", public',
  statement_timeout: "0",
  lock_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  idle_session_timeout: "0",
  application_name: "",
  max_connections: "100",
  hot_standby_feedback: "off",
  work_mem: "4MB",
  row_security: "on",
  client_min_messages: "notice",
  in_hot_standby: "off",
  transaction_isolation: "read committed",
  transaction_read_only: "off",
  session_authorization: "app",
  role: "none",
  lc_messages: "C",
  extra_float_digits: "1",
  plan_cache_mode: "auto"
}

/** The settings that the client is told of, at the start and whenever they change, as they are written. */
const reported: ReadonlyArray<string> = [
  "in_hot_standby",
  "integer_datetimes",
  "TimeZone",
  "IntervalStyle",
  "search_path",
  "is_superuser",
  "application_name",
  "default_transaction_read_only",
  "scram_iterations",
  "DateStyle",
  "standard_conforming_strings",
  "session_authorization",
  "client_encoding",
  "server_version",
  "server_encoding"
]

/** Whether it is one that an extension, or a program, has made up. */
export const isCustom = (name: string): boolean => name.includes(".")

export const unknownSetting = (name: string, routine = "find_option"): PgError =>
  new PgError("42704", `unrecognized configuration parameter "${name}"`, routine)

const units = { d: 86_400_000, h: 3_600_000, min: 60_000, s: 1000, ms: 1, us: 0.001 } as const

const millisOrNone = (value: string): number | undefined => {
  const [, number, unit = "ms"] = /^\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)?\s*$/.exec(value) ?? []
  return number === undefined ? undefined : Math.round(Number(number) * units[unit as keyof typeof units])
}

/** A time in milliseconds; without a unit it is that already. */
export const millisOf = (value: string): number => millisOrNone(value) ?? 0

/** A time with the largest unit that it is a whole number of. */
const timeText = (millis: number): string => {
  if (millis === 0) return "0"
  const [unit, size] = Object.entries(units).find(([, size]) => millis % size === 0)!
  return `${millis / size}${unit}`
}

const isolations = ["serializable", "repeatable read", "read committed", "read uncommitted"]

const refused = (message: string, details: Details = {}): PgError =>
  new PgError("22023", message, "parse_and_validate_value", "ERROR", details)

/** A value as the server shows it. Throws what the server says to a name, or a value, that it does not know. */
export const checked = (name: string, value: string): string => {
  if (isCustom(name)) return value
  if (defaults[name] === undefined) throw unknownSetting(name, "assignable_custom_variable_name")
  if (name.endsWith("_timeout")) {
    const millis = millisOrNone(value)
    if (millis === undefined) throw refused(`invalid value for parameter "${name}": "${value}"`)
    return timeText(millis)
  }
  if (["default_transaction_read_only", "row_security", "default_transaction_deferrable"].includes(name)) {
    const isOn = /^(on|true|yes|1|t)$/i.test(value)
    if (!isOn && !/^(off|false|no|0|f)$/i.test(value)) throw refused(`parameter "${name}" requires a Boolean value`)
    return isOn ? "on" : "off"
  }
  if (name === "default_transaction_isolation" && !isolations.includes(value)) {
    const hint = `Available values: ${isolations.join(", ")}.`
    throw refused(`invalid value for parameter "${name}": "${value}"`, { hint })
  }
  return value
}

/** What `options` at the start of a session says: `-c name=value`. */
const ofOptions = (options: string): ReadonlyArray<readonly [string, string]> =>
  [...options.matchAll(/(?:-c\s*|--)([\w.]+)=((?:\\.|\S)*)/g)].map(([, name, value]) => [
    name!,
    value!.replace(/\\(.)/g, "$1")
  ])

export class Settings {
  private readonly atStart = new Map<string, string>()
  private values = new Map<string, string>()
  private readonly told = new Map<string, string>()

  constructor(private readonly live: (name: string) => string | undefined) {}

  /** Takes what the client says at the start. */
  begin({ database: _database, options = "", user, ...parameters }: Readonly<Record<string, string>>): void {
    this.atStart.set("session_authorization", user ?? "")
    for (const [name, value] of [...Object.entries(parameters), ...ofOptions(options)]) {
      const lower = name.toLowerCase()
      this.atStart.set(lower, checked(lower, value))
    }
  }

  /** What it is when the session has not said anything. */
  reset(name: string): string | undefined {
    return this.atStart.get(name) ?? this.live(name) ?? defaults[name]
  }

  get(name: string): string | undefined {
    return this.values.get(name) ?? this.reset(name)
  }

  has(name: string): boolean {
    return this.values.has(name)
  }

  set(name: string, value: string): void {
    this.values.set(name, value)
  }

  /** Everything is as it was at the start; a custom setting that there was has no value now, and is there. */
  clear(): void {
    this.values = new Map([...this.values.keys()].filter(isCustom).map((name) => [name, this.reset(name) ?? ""]))
  }

  /** What has changed since it was told last, of what the client is told. */
  changes(current: (name: string) => string | undefined): ReadonlyArray<readonly [string, string]> {
    return reported.flatMap((name) => {
      const value = current(name.toLowerCase()) ?? ""
      if (this.told.get(name) === value) return []
      this.told.set(name, value)
      return [[name, value] as const]
    })
  }
}
