import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { maskLiterals } from "../../src/internal/status/maskLiterals.js"

const secret = "S3CRET"

describe("a text of SQL without its constants", () => {
  const rows: ReadonlyArray<readonly [sql: string, masked: string]> = [
    ["CREATE ROLE app PASSWORD 'S3CRET''x' LOGIN", "CREATE ROLE app PASSWORD ? LOGIN"],
    ["SELECT * FROM dblink('host=x password=S3CRET', $1)", "SELECT * FROM dblink(?, $1)"],
    ["SELECT E'a\\'b S3CRET', 2", "SELECT ?"],
    ["SELECT $$S3CRET$$, $a$ S3CRET $$ $a$, $1, a.b$c FROM t1", "SELECT ?, ?, $1, a.b$c FROM t1"],
    ["SELECT x'1F', B'01', n'S3CRET', U&'S3CRET'", "SELECT ?, ?, ?, U&?"],
    ["SELECT 1, -2.5e-3, .5, 0xFF, 1_000 FROM t2", "SELECT ?, -?, ?, ?, ? FROM t2"],
    [`SELECT "na'me" FROM "t" -- S3CRET`, `SELECT "na'me" FROM "t" `],
    ["SELECT a /* S3CRET /* in it */ S3CRET */ FROM t WHERE b = 'S3CRET", "SELECT a   FROM t WHERE b = ?"],
    [`SELECT "unterminated, 'S3CRET'`, "SELECT ?"],
    ["SET LOCAL app.token = S3CRET", "SET LOCAL app.token = ?"],
    ["SET app.token TO S3CRET; SELECT a", "SET app.token TO ?; SELECT a"],
    ["SELECT 1; SET app.token = S3CRET; SELECT a", "SELECT ?; SET app.token = ?; SELECT a"],
    ['set "app" . token=S3CRET', 'set "app" . token=?'],
    ["SET search_path TO S3CRET, S3CRET", "SET search_path TO ?"],
    ["ALTER DATABASE d SET app.token TO S3CRET", "ALTER DATABASE d SET app.token TO ?"],
    ["alter role r in database d set app.token=S3CRET", "alter role r in database d set app.token=?"],
    ['ALTER USER "a;b" SET app.token TO "S3CRET; S3CRET"', 'ALTER USER "a;b" SET app.token TO ?'],
    ["ALTER SYSTEM SET app.token = S3CRET;", "ALTER SYSTEM SET app.token = ?;"],
    ["ALTER FUNCTION f(int) SET app.token TO S3CRET", "ALTER FUNCTION f(int) SET app.token TO ?"],
    ["ALTER PROCEDURE p SET a.b TO S3CRET SET c.d TO S3CRET", "ALTER PROCEDURE p SET a.b TO ?"],
    [
      "CREATE OR REPLACE FUNCTION f() RETURNS int SET a.b = S3CRET AS $$x$$",
      "CREATE OR REPLACE FUNCTION f() RETURNS int SET a.b = ?"
    ],
    ['ALTER ROLE r SET a.b TO S3CRET "', "ALTER ROLE r SET a.b TO ??"],
    ["ALTER TABLE t SET SCHEMA s", "ALTER TABLE t SET SCHEMA s"],
    [
      "INSERT INTO t VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = b",
      "INSERT INTO t VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = b"
    ],
    ["UPDATE t SET a = b WHERE c = $2", "UPDATE t SET a = b WHERE c = $2"],
    ["SELECT 'a\\", "SELECT ?"],
    ["", ""]
  ]

  for (const [sql, masked] of rows) {
    it(JSON.stringify(sql), () => {
      assert.strictEqual(maskLiterals(sql), masked)
      assert.notInclude(masked, secret)
    })
  }

  it("never shows what stands in quotes, whatever stands before it", () => {
    const before = fc.array(
      fc.constantFrom(
        "SELECT ",
        "a, ",
        "'x', ",
        "E'\\\\', ",
        `"n''m", `,
        "$$ ' $$, ",
        "/* ' */ ",
        "-- '\n",
        "$1, ",
        "1e5, ",
        "$t$'$t$ "
      ),
      { maxLength: 12 }
    )
    const quoted = fc.constantFrom(
      `'${secret}'`,
      `E'${secret}'`,
      `'it''s ${secret}'`,
      `$$${secret}$$`,
      `$x$'${secret}$x$`,
      `/*${secret}*/`
    )
    fc.assert(
      fc.property(before, quoted, before, (head, text, tail) => {
        assert.notInclude(maskLiterals([...head, text, " ", ...tail].join("")), secret)
      }),
      { numRuns: 5_000 }
    )
  })

  it("takes time in proportion to the text", () => {
    const time = (sql: string) => {
      const began = process.hrtime.bigint()
      maskLiterals(sql)
      return Number(process.hrtime.bigint() - began)
    }
    for (const part of ["'", "/*", "$a$", '"', "1", "a", "''", "\\'", "-- "]) {
      const [short, long] = [part.repeat(2_000), part.repeat(20_000)]
      time(short)
      const best = (sql: string) => Math.min(...Array.from({ length: 5 }, () => time(sql)))
      assert.isBelow(best(long), best(short) * 100 + 2e6, part)
    }
  })
})
