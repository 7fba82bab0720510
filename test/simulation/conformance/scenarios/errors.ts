import type { Scenario } from "../Site.js"
export const errors: ReadonlyArray<Scenario> = []
