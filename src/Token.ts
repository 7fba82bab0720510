/**
 * A position as a text that may leave the process: in a cookie, a header, a message of a queue. It says how far its holder
 * has written and read, for as long as a replica may be behind. A signature keeps it from being forged. Pure; time is given.
 *
 * 60 bytes as 80 characters of base64url (RFC 4648, section 5, no padding): the version (1), a hint at the key (1), the
 * system identifier (8), the timeline (4), the position (8), the expiry in milliseconds since 1970 (6), and HMAC-SHA-256
 * (RFC 2104) over all of these (32). All integers are big-endian. It is not encrypted: its holder can read the position.
 *
 * @since 0.1.0
 */
import { createHmac, createSecretKey, type KeyObject, randomBytes, timingSafeEqual } from "node:crypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import type { Position } from "./Position.js"
import { RouterConfigError } from "./RouterError.js"

/**
 * The content of a token.
 *
 * @since 0.1.0
 * @category models
 */
export interface Token {
  readonly position: Position
  /** From when on it says nothing any more, in milliseconds since 1970. */
  readonly expiresAt: number
}

/**
 * The reason why a token is ignored:
 *
 * - `tooLong`: more than 256 characters; nothing else of it is looked at
 * - `malformed`: not a token: other characters, another length
 * - `version`: of another version of the format
 * - `signature`: not signed with any of the keys, or changed since
 * - `expired`: it was good until its expiry
 * - `impossible`: signed, but for a position that the primary has not reached, or for another system
 *
 * @since 0.1.0
 * @category models
 */
export type Rejection = "tooLong" | "malformed" | "version" | "signature" | "expired" | "impossible"

interface Key {
  readonly id: number
  readonly secret: KeyObject
}

/**
 * The keys that tokens are signed with: {@link keys} makes them.
 *
 * @since 0.1.0
 * @category models
 */
export interface Keys {
  /** Signs. */
  readonly current: Key
  /** All that a token may be signed with, the current one included. */
  readonly accepted: ReadonlyArray<Key>
}

/**
 * The options of tokens.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The secrets that tokens are signed with: the first one signs, all are accepted. Every process that shares tokens needs the
   * same; each has at least 32 bytes, such as `openssl rand -base64 32` prints. To rotate, put a new one in front everywhere
   * where it is accepted already, and drop the old one when its tokens have expired: first `[old, new]`, then `[new, old]`,
   * then `[new]`. Default: a random one of the process, with a warning at its first token: then no other process, and not this
   * one after a restart, accepts its tokens.
   */
  readonly keys?: ReadonlyArray<Redacted.Redacted> | undefined
  /**
   * The lifetime of a token, from its making on. Longer than a replica may be behind and still get reads
   * (`health.maxLag`, by default 10 seconds): after that, every replica has what the token is about. It is also how long the
   * holder of a token from before a promotion reads from the primary. Default: `"1 minute"`.
   */
  readonly lifetime?: Duration.DurationInput | undefined
}

/**
 * The options after validation.
 *
 * @since 0.1.0
 * @category models
 */
export interface Resolved {
  /** `undefined`: a random one of the process. */
  readonly keys: Keys | undefined
  readonly lifetime: Duration.Duration
}

const version = 1

const signedLength = 28
const length = signedLength + 32
const textLength = (length / 3) * 4

/** Room for versions to come; what is longer is not even looked at. */
const maxTextLength = 256

const maxTime = 2 ** 48 - 1

/**
 * The fewest bytes of a key: as many as the output of the hash (RFC 2104, section 3).
 *
 * @since 0.1.0
 * @category keys
 */
export const minKeyBytes = 32

/**
 * The lifetime of a token, if the options do not say it.
 *
 * @since 0.1.0
 * @category models
 */
export const defaultLifetime: Duration.Duration = Duration.minutes(1)

// A secret may serve other purposes too: what is signed here means nothing there.
const purpose = "effect-db-router/Token"

const keyOf = (secret: Uint8Array): Key => {
  const signing = createHmac("sha256", secret).update(purpose).digest()
  return { id: createHmac("sha256", signing).update("id").digest()[0]!, secret: createSecretKey(signing) }
}

/**
 * The keys from secrets, the current one first: see {@link Options}. What is wrong is a `RouterConfigError` about `field`,
 * which shows no part of a secret.
 *
 * @since 0.1.0
 * @category keys
 */
export const keys = (
  secrets: ReadonlyArray<Redacted.Redacted>,
  field = "keys"
): Either.Either<Keys, RouterConfigError> => {
  const made: Array<Key> = []
  for (const [i, secret] of secrets.entries()) {
    const text: unknown = Redacted.isRedacted(secret) ? Redacted.value(secret) : undefined
    const bytes = typeof text === "string" ? Buffer.from(text) : undefined
    if (bytes === undefined || bytes.length < minKeyBytes) {
      return Either.left(
        new RouterConfigError({
          field: `${field}[${i}]`,
          value: "<redacted>",
          remedy:
            bytes === undefined
              ? "It must be a secret: wrap the text in Redacted.make(...), or read it with Config.redacted"
              : `It has ${bytes.length} bytes, and a key has at least ${minKeyBytes}: openssl rand -base64 32 prints one`
        })
      )
    }
    made.push(keyOf(bytes))
  }
  const [current] = made
  return current === undefined
    ? Either.left(
        new RouterConfigError({
          field,
          value: "an empty list",
          remedy: "Name at least one key, or leave the field out"
        })
      )
    : Either.right({ current, accepted: made })
}

/**
 * A random key, for tokens that need not leave the process.
 *
 * @since 0.1.0
 * @category keys
 */
export const randomKeys: Effect.Effect<Keys> = Effect.sync(() => {
  const current = keyOf(randomBytes(minKeyBytes))
  return { current, accepted: [current] }
})

const sign = (key: Key, signed: Uint8Array): Buffer => createHmac("sha256", key.secret).update(signed).digest()

/**
 * The text of a token, signed with the current key. An expiry outside of what six bytes hold is moved to the nearest that they
 * do. Throws a `RangeError` for a position that no PostgreSQL server has: a system identifier or a position of more than 64
 * bits, a timeline of more than 32.
 *
 * @since 0.1.0
 * @category codec
 */
export const encode = (keys: Keys, position: Position, options: { readonly expiresAt: number }): string => {
  const bytes = Buffer.alloc(length)
  bytes[0] = version
  bytes[1] = keys.current.id
  // PostgreSQL prints it with a sign.
  bytes.writeBigInt64BE(BigInt(position.system), 2)
  bytes.writeUInt32BE(position.timeline, 10)
  bytes.writeBigUInt64BE(position.lsn, 14)
  bytes.writeUIntBE(Math.max(0, Math.min(maxTime, Math.floor(options.expiresAt))), 22, 6)
  sign(keys.current, bytes.subarray(0, signedLength)).copy(bytes, signedLength)
  return bytes.toString("base64url")
}

const alphabet = /^[\w-]+$/

/**
 * Reads a token that was signed with any of the keys and has not expired at `now` (milliseconds since 1970). Never throws,
 * whatever it is given; no more than the first 256 characters cost anything, and the signature is compared in constant time.
 *
 * @since 0.1.0
 * @category codec
 */
export const decode = (keys: Keys, text: string, now: number): Either.Either<Token, Rejection> => {
  if (typeof text !== "string") return Either.left("malformed")
  if (text.length > maxTextLength) return Either.left("tooLong")
  if (!alphabet.test(text)) return Either.left("malformed")
  const bytes = Buffer.from(text, "base64url")
  if (bytes[0] !== version) return Either.left(bytes.length === 0 ? "malformed" : "version")
  // Every text of this length stands for other bytes: a token has one spelling.
  if (text.length !== textLength) return Either.left("malformed")
  const signed = bytes.subarray(0, signedLength)
  const signature = bytes.subarray(signedLength)
  const isSigned = keys.accepted.some((key) => key.id === bytes[1] && timingSafeEqual(sign(key, signed), signature))
  if (!isSigned) return Either.left("signature")
  const expiresAt = bytes.readUIntBE(22, 6)
  if (expiresAt <= now) return Either.left("expired")
  const position = {
    system: String(bytes.readBigInt64BE(2)),
    timeline: bytes.readUInt32BE(10),
    lsn: bytes.readBigUInt64BE(14)
  }
  return Either.right({ position, expiresAt })
}

/**
 * Returns `true` if a position may be of a system whose primary is at `known`. One on a timeline before that of the primary may
 * be: it is from before a promotion. A position beyond `known` is impossible only if `known` is fresh, taken after the token came.
 *
 * @since 0.1.0
 * @category questions
 */
export const isPossible = (position: Position, known: Position): boolean =>
  position.system === known.system &&
  (position.timeline < known.timeline || (position.timeline === known.timeline && position.lsn <= known.lsn))
