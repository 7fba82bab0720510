import type { Scenario } from "../Site.js"
export const transactions: ReadonlyArray<Scenario> = []
