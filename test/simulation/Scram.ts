/** SCRAM-SHA-256 (RFC 5802, 7677) from the server's side. */
import * as Crypto from "node:crypto"

export const password = "secret"
const salt = Buffer.from("a salt for tests")
// The fewest that the driver takes: a run connects a thousand times.
const iterations = 1

const hmac = (key: Buffer, text: string) => Crypto.createHmac("sha256", key).update(text).digest()
const sha256 = (bytes: Buffer) => Crypto.createHash("sha256").update(bytes).digest()

const salted = Crypto.pbkdf2Sync(password, salt, iterations, 32, "sha256")
const storedKey = sha256(hmac(salted, "Client Key"))
const serverKey = hmac(salted, "Server Key")

const attribute = (text: string, name: string): string =>
  text
    .split(",")
    .find((part) => part.startsWith(`${name}=`))
    ?.slice(2) ?? ""

export class Scram {
  private clientFirst = ""
  private serverFirst = ""

  /** The answer to the client's first message. */
  first(body: Buffer, nonce: string): string {
    const end = body.indexOf(0)
    const text = body.toString("utf8", end + 5)
    this.clientFirst = text.slice(text.indexOf("n=*") >= 0 ? text.indexOf("n=*") : 3)
    this.serverFirst = `r=${attribute(this.clientFirst, "r")}${nonce},s=${salt.toString("base64")},i=${iterations}`
    return this.serverFirst
  }

  /** The answer to the client's proof; `undefined` if it is wrong. */
  last(body: Buffer): string | undefined {
    const text = body.toString("utf8")
    const proof = Buffer.from(attribute(text, "p"), "base64")
    const message = `${this.clientFirst},${this.serverFirst},${text.slice(0, text.indexOf(",p="))}`
    const signature = hmac(storedKey, message)
    const clientKey = Buffer.from(proof.map((byte, i) => byte ^ signature[i]!))
    if (!sha256(clientKey).equals(storedKey)) return undefined
    return `v=${hmac(serverKey, message).toString("base64")}`
  }
}
