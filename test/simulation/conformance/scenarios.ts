/** All scenarios. */
import type { Scenario } from "./Site.js"
import { errors } from "./scenarios/errors.js"
import { routing } from "./scenarios/routing.js"
import { servers } from "./scenarios/servers.js"
import { sessions } from "./scenarios/sessions.js"
import { transactions } from "./scenarios/transactions.js"
import { wire } from "./scenarios/wire.js"

export const scenarios: ReadonlyArray<Scenario> = [
  ...wire,
  ...sessions,
  ...transactions,
  ...errors,
  ...servers,
  ...routing
]
