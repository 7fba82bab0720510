import { fileURLToPath } from "node:url"
import { onCluster, pureTests, testFiles } from "./support/quick.js"
import config from "./vitest.config.js"

const root = fileURLToPath(new URL("..", import.meta.url))

export default { ...config, test: { ...config.test, include: [...pureTests(testFiles(root)), onCluster] } }
