/** What a server does though nothing asked for it. Thrown while it is read, it ends the connection. */
import { ProtocolViolation } from "./failure.js"

export const suspendedUnasked = (): Error =>
  new ProtocolViolation("The server keeps rows back, though it was asked for all of them")
