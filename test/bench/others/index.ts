import { built, prepared } from "./Drizzle.js"
import { kysely } from "./KyselyReplication.js"
import type { Other } from "./Other.js"
import { porsager } from "./Postgres.js"
import { batched, prisma } from "./Prisma.js"
import { sequelize } from "./Sequelize.js"
import { typeOrm } from "./TypeOrm.js"

export const others: ReadonlyArray<Other> = [built, prepared, kysely, typeOrm, sequelize, prisma, batched, porsager]
