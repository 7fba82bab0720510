import { Effect } from "effect"
import * as Pg from "pg"
import type { Servers } from "./Other.js"

const pool = (url: string, max: number) =>
  Effect.acquireRelease(
    Effect.sync(() => new Pg.Pool({ connectionString: url, max })),
    (pool) => Effect.promise(() => pool.end())
  )

/** A pool of the driver for each server. */
export const pools = ({ poolSize, primary, replica }: Servers) =>
  Effect.all({ primary: pool(primary, poolSize), replica: pool(replica, poolSize) })
