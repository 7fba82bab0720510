import config from "../vitest.config.js"

// `main.ts` says which tests are to notice the changes of a room.
const tests = process.env.MUTATE_TESTS?.split(",") ?? []

export default { ...config, test: { ...config.test, include: tests, reporters: [] } }
