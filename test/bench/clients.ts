/** Fifty keep-alive clients in a process of their own: they send requests to a port for some milliseconds, and tell what came. */
import { Agent, request } from "node:http"

/** What clients are to do. */
export interface Load {
  readonly port: number
  readonly method: string
  readonly millis: number
}

/** What they have seen: how long each answer took, in milliseconds, and how many were not a 200. */
export interface Loaded {
  readonly took: ReadonlyArray<number>
  readonly failed: number
}

const clients = 50

const agent = new Agent({ keepAlive: true, maxSockets: clients })

const load = ({ method, millis, port }: Load): Promise<Loaded> =>
  new Promise((resolve) => {
    const end = performance.now() + millis
    const took: Array<number> = []
    let failed = 0
    let open = clients
    const one = () => {
      const began = performance.now()
      if (began > end) {
        open--
        if (open === 0) resolve({ took, failed })
        return
      }
      const asked = request({ host: "127.0.0.1", port, path: "/", method, agent }, (response) => {
        if (response.statusCode !== 200) failed++
        response.resume()
        response.on("end", () => {
          took.push(performance.now() - began)
          one()
        })
      })
      asked.on("error", () => {
        failed++
        one()
      })
      asked.end()
    }
    for (let i = 0; i < clients; i++) one()
  })

process.on("message", (asked: Load) => {
  load(asked).then((loaded) => process.send?.(loaded))
})
