/** A process with little memory that reads from a server which sends rows without end. Prints what became of it. */
import * as Net from "node:net"
import { Connection } from "../../src/internal/driver/connection.js"
import { message, ready } from "../fuzz/Mutation.js"

const int16 = (n: number) => Buffer.from([n >> 8, n & 255])
const int32 = (n: number) => Buffer.from([n >> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255])

const letIn = Buffer.concat([message("R", int32(0)), message("K", Buffer.alloc(8, 1)), ready])
const column = Buffer.concat([Buffer.from("a\0"), int32(0), int16(0), int32(25), int16(-1), int32(-1), int16(0)])
const row = message("D", Buffer.concat([int16(1), int32(1_000), Buffer.alloc(1_000, 0x78)]))
const begin = Buffer.concat([message("1"), message("2"), message("T", Buffer.concat([int16(1), column]))])
const rows = Buffer.concat(Array.from({ length: 100 }, () => row))
const end = Buffer.concat([message("C", Buffer.from("SELECT 1\0")), ready])

let isEndless = true

const server = Net.createServer((socket) => {
  let hasStarted = false
  socket.on("error", () => {})
  socket.on("data", () => {
    if (!hasStarted) {
      hasStarted = true
      socket.write(letIn)
      return
    }
    socket.write(begin)
    const more = () => {
      while (!socket.destroyed && socket.write(rows));
    }
    if (isEndless) {
      socket.on("drain", more)
      more()
    } else socket.write(Buffer.concat([row, end]))
  })
})

const read = (port: number) =>
  new Promise<string>((resolve) => {
    const connection = new Connection({ host: "127.0.0.1", port, user: "me", database: "d" }, () => {})
    connection.connect((error) => {
      if (error !== undefined) return resolve(`not connected: ${error.message}`)
      connection.query({ text: "SELECT a", values: [1] }, (error, result) => {
        resolve(error === undefined ? `then ${(result as { rows: Array<unknown> }).rows.length}` : error.name)
        connection.destroy()
      })
      return undefined
    })
  })

server.listen(0, "127.0.0.1", async () => {
  const { port } = server.address() as Net.AddressInfo
  const found = await Promise.all(Array.from({ length: 4 }, () => read(port)))
  isEndless = false
  console.log([...found, await read(port)].join("\n"))
  process.exit(0)
})
