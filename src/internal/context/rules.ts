/** What a unit of work has set for all that is composed inside it. */
type Settings = ReadonlyArray<readonly [name: string, value: string]>

export interface Rules {
  /** Settings of every transaction and connection. */
  readonly settings: Settings
  /** Whether statements that may write are refused. */
  readonly readOnly: boolean
}

/** A place outside of every session and transaction, where the rules of the unit of work around still hold. */
export class Outskirts {
  constructor(readonly rules: Rules) {}
}

export const make = (settings: Settings, readOnly: boolean): Rules | undefined =>
  settings.length > 0 || readOnly ? { settings, readOnly } : undefined

/** Whether what holds in two places is the same. */
export const areSame = (a: Rules | undefined, b: Rules | undefined): boolean =>
  a === b || (a?.readOnly === b?.readOnly && JSON.stringify(a?.settings) === JSON.stringify(b?.settings))

/** What `settings: "none"` and a new name say of the settings around. */
export const merge = (around: Settings, own: Settings | "none" | undefined): Settings => {
  if (own === undefined || own === "none") return own === undefined ? around : []
  const merged = new Map(around)
  for (const [name, value] of own) merged.set(name, value)
  return [...merged]
}

/**
 * Whether a backslash in a plain literal means something else than by the standard, by which texts are classified. What is a read by
 * it may be a write then.
 */
export const readsOtherwise = (settings: Settings): boolean =>
  settings.some(([name, value]) => name.toLowerCase() === "standard_conforming_strings" && value !== "on")

/** The options of a session for what runs under rules, and nothing else. */
export const optionsOf = ({ readOnly, settings }: Rules) => ({
  isolation: undefined,
  readsOnPrimary: readsOtherwise(settings),
  readOnly,
  deferrable: false,
  snapshot: false,
  timeouts: [],
  settings,
  settingsForReads: settings.length > 0
})

/** Settings of a connection that is not in a transaction. */
export const onConnection = ({ readOnly, settings }: Rules): Settings =>
  readOnly ? [["default_transaction_read_only", "on"], ...settings] : settings
