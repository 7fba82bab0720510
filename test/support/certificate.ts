import { generateKeyPairSync, sign } from "node:crypto"

/** A key and a certificate for it that it has signed itself, as PEM. */
export interface Certificate {
  readonly key: string
  readonly cert: string
}

/** One element of DER: a tag, the length of what is in it, and that. */
const element = (tag: number, ...content: ReadonlyArray<Buffer>): Buffer => {
  const body = Buffer.concat(content)
  const bytes: Array<number> = []
  for (let rest = body.length; rest > 0; rest >>= 8) bytes.unshift(rest & 0xff)
  const length = body.length < 128 ? [body.length] : [0x80 | bytes.length, ...bytes]
  return Buffer.concat([Buffer.from([tag, ...length]), body])
}

const sequence = (...content: ReadonlyArray<Buffer>) => element(0x30, ...content)
const integer = (value: number) => element(0x02, Buffer.from([value]))
const bits = (content: Buffer) => element(0x03, Buffer.from([0]), content)
const octets = (content: Buffer) => element(0x04, content)
const identifier = (hex: string) => element(0x06, Buffer.from(hex, "hex"))

const ecdsaWithSha256 = sequence(identifier("2a8648ce3d040302"))
const commonName = identifier("550403")
const subjectAltName = identifier("551d11")

const time = (date: Date) => element(0x17, Buffer.from(`${date.toISOString().slice(2, 19).replace(/[-:T]/g, "")}Z`))

const pem = (label: string, der: Buffer) => {
  const lines = der.toString("base64").match(/.{1,64}/g)!
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`
}

/** Makes a certificate for a DNS name, valid from yesterday for a month (RFC 5280, section 4.1). */
export const make = (name: string): Certificate => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" })
  const day = 86_400_000
  const subject = sequence(element(0x31, sequence(commonName, element(0x0c, Buffer.from(name)))))
  const body = sequence(
    element(0xa0, integer(2)),
    integer(1),
    ecdsaWithSha256,
    subject,
    sequence(time(new Date(Date.now() - day)), time(new Date(Date.now() + 30 * day))),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
    element(0xa3, sequence(sequence(subjectAltName, octets(sequence(element(0x82, Buffer.from(name)))))))
  )
  return {
    key: String(privateKey.export({ type: "pkcs8", format: "pem" })),
    cert: pem("CERTIFICATE", sequence(body, ecdsaWithSha256, bits(sign("sha256", body, privateKey))))
  }
}
