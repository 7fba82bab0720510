/** Which texts have a constant that the server reads as a time of now, when it parses them: they have no name. */
import { assert, describe, it } from "@effect/vitest"
import { hasTimeOfNow } from "../../src/internal/driver/timeOfNow.js"

const times = [
  "insert into t values ($1, 'now')",
  "insert into t values ($1, ' Now ')",
  "select 'now()'::timestamptz",
  "select '_now_'::timestamptz",
  "select $$now$$::timestamptz",
  "select $a$now$a$::timestamptz",
  "select date 'today', $1",
  "select '12:00today'::timestamptz",
  "select 'today12:00'::timestamptz",
  "select 'allballs tomorrow'::timestamptz",
  "select '[now,)'::tstzrange",
  "select '[\"yesterday\",)'::tstzrange",
  "select '{2020-01-01,now}'::timestamptz[]",
  "select e'now'::timestamptz",
  "select e'\\x6eow'::timestamptz",
  "select e'\\156ow'::timestamptz",
  "select u&'\\006eow'::timestamptz",
  "select u&'!006eow' uescape '!' ::timestamptz",
  "select 'no'\n'w'::timestamptz",
  "select 'it''s', 'now'::timestamptz",
  "select e'it\\'s', 'now'::timestamptz",
  "select $1, 'now'::timestamptz",
  "select \"it's\", 'now'::timestamptz from t",
  "select 1 -- it's\n, 'now'::timestamptz",
  "select /* it's */ 'now'::timestamptz",
  "select /* /* */ it's */ 'now'::timestamptz"
]

const others = [
  "select * from t where id = $1",
  "select now(), 'a', now()",
  "select * from t where at < now() and kind = 'a'",
  "select 'snow', 'nowhere', 'knowledge'",
  "select \"today\" from t where kind = 'a' and id = $1",
  "select t.today from t where kind in ('a', 'b') and yesterday > $1",
  "select 1 /* now */ where 'a' = $1",
  "select 'a' -- what is so now\nwhere $1 = 1",
  "select $1, now(), $2, 'a'",
  "select e'a\\n', $1"
]

describe("a text with a time of now", () => {
  for (const sql of times) it(`is seen in ${JSON.stringify(sql)}`, () => assert.isTrue(hasTimeOfNow(sql)))
  for (const sql of others) it(`is not seen in ${JSON.stringify(sql)}`, () => assert.isFalse(hasTimeOfNow(sql)))

  it("is looked for in little time", () => {
    for (const part of ["'now", "e'", "$a$ now ", "/* now ", '" now '])
      assert.isBoolean(hasTimeOfNow(part.repeat(16_384 / part.length)))
  })
})
