/** What functions leave on their connection, by their bodies, and which statements reach such a function. */
import * as Rules from "./rules.js"

/** Objects below this oid are PostgreSQL's own (access/transam.h, FirstNormalObjectId). */
export const own = 16384

/** Comments, of which none has a backslash that counts, and literals. */
const literals = /--[^\n]*|'(?:[^']|'')*'/g

/** The same text, read alike whatever `standard_conforming_strings` is: with it off a backslash in a plain literal escapes. */
export const portable = (sql: string): string =>
  sql.replace(literals, (found) =>
    found.startsWith("'") && found.includes("\\") ? `E${found.replaceAll("\\", "\\\\")}` : found
  )

export const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

/** Where a statement may begin in a body: in front, behind another one, in a text that is executed. */
const statement = (words: string) =>
  `(^|[;$]|\\m(begin|then|else|loop)\\M|>>|\\m(execute|spi_\\w+)\\M[^;]*')\\s*(${words})|["\`](${words})`

/** An argument of a call. Calls in it are looked through two levels deep. */
const argument = "([^()',;]|'[^']*'|\\(([^()']|'[^']*'|\\(([^()']|'[^']*')*\\))*\\))+"

/** Sets something until the transaction ends. */
const setsLocally = `\\mset_config\\s*\\(${argument},${argument},\\s*(is_local\\s*(:=|=>)\\s*)?(true|'t(rue)?')\\s*\\)`

/** The view has a rule that calls set_config. */
const updatesSettings = '\\mupdate\\s+(only\\s+)?("?pg_catalog"?\\s*\\.\\s*)?"?pg_settings\\M'

/** Statements after it mean something else without it. */
const sets = `\\m(set_config|pg_temp)\\M|${updatesSettings}|${statement("(set|reset)\\M")}`

/** Sets something on the connection, or takes something there. */
const untilClosed = [
  "\\m(set_config|setseed|pg_replication_origin_session_setup|pg_temp)\\M",
  "\\mpg_(try_)?advisory_(un)?lock",
  updatesSettings,
  statement("(set\\M(?!\\s+(local|constraints|transaction)\\M)|(reset|listen|unlisten|load|discard)\\M)"),
  "\\m(temp|temporary)\\s+(table|view|sequence|recursive)\\M|\\minto\\s+((local|global)\\s+)?(temp|temporary)\\M",
  "\\mwith\\s+hold\\M"
].join("|")

/** Runs a text that is not in the body. */
const hidden = `\\m(${[...Rules.hiddenSql].join("|")})\\M`

/** How texts for EXECUTE begin that show what they do. */
const shown =
  "(alter|analyze|comment|create|delete|drop|grant|insert|merge|notify|refresh|revoke|truncate|update)\\M|select\\s+(\\*|\\d|\\w+\\s*(,|from\\M|into\\M))"

/** EXECUTE of a text that is put together. What is not volatile can execute nothing but a SELECT. */
const putTogether = `\\mexecute\\M(?!\\s+(function|procedure|on)\\M)(?!\\s*\\(?\\s*(format\\s*\\(\\s*)?(e?'|\\$\\w*\\$)\\s*(${shown}))`

const prepares = `${statement("(prepare|deallocate)\\M")}|'\\s*(prepare|deallocate)\\M`

/** Sets something until the transaction ends, or takes something. */
const untilTheEnd = `\\m(set_config|pg_export_snapshot)\\M|\\mpg_(try_)?advisory_xact_|${statement("(set|lock)\\M")}`

/** Reads a setting, or may. */
const readsSettings = `\\m(current_setting|pg_settings)\\M|${putTogether}`

/** Every body that does any of this has one of these. */
const suspicious = `set_config|setseed|advisory|temp|execute|spi_|prepare|deallocate|_xml|ts_stat|ts_rewrite|hold|snapshot|pg_settings|origin_session|${statement("set|reset|listen|unlisten|load|discard|lock")}`

/** PostgreSQL's own functions that do. */
const builtins = `
    SELECT oid, CASE WHEN name ~ '_xact_' OR name = 'pg_export_snapshot' THEN 0 WHEN name = 'set_config' THEN 3 ELSE 1 END AS trace
    FROM (SELECT oid, proname::text AS name FROM pg_proc WHERE oid < ${own}) p
    WHERE name ~ '^(set_config|setseed|pg_(try_)?advisory_.*lock.*|pg_export_snapshot|pg_replication_origin_session_setup)$'
      OR name ~ ${literal(`^${hidden}$`)}`

/**
 * A trace is a set of bits: 1, it may outlast the transaction; 2, what comes after means something else without it; 4, prepared
 * statements are made or dropped, too.
 */
const asObject = (trace: string) =>
  `json_build_object('until', CASE WHEN ${trace} & 4 > 0 THEN 'connection' WHEN ${trace} & 1 > 0 THEN 'unknown' ELSE 'transaction' END,
      'sets', ${trace} & 2 > 0)`

/** The words of a text in small letters; those that may be called have a parenthesis. */
const words = (text: string) =>
  `replace(replace(regexp_replace(lower(${text}), '[^[:alnum:]_$(]+', ' ', 'g'), ' (', '('), '(', '( ')`

/** What a body has to have of a name. */
const wordOf = (name: string) => `split_part(btrim(${words(name)}, ' ('), ' ', 1)`

/**
 * What a text sets that PostgreSQL's own functions and statements set, and everything that reaches such a text. What an
 * extension's functions do is not looked at. What is looked for first is cheap, and where it finds nothing the rest is not run.
 */
export const state = `
  texts AS MATERIALIZED (
    SELECT p.oid, p.provolatile = 'v' AS volatile, l.lanname IN ('sql', 'plpgsql') AS known,
      p.prosrc || CASE WHEN p.prosrc ~ '--|/\\*' THEN
        ' ' || regexp_replace(regexp_replace(p.prosrc, '/\\*.*?\\*/', ' ', 'g'), '--[^\n]*', ' ', 'g') ELSE '' END AS text
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.oid >= ${own} AND l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL
      AND p.oid NOT IN (SELECT oid FROM extensions)
  ),
  setting AS MATERIALIZED (${builtins}
  ),
  -- What a write evaluates: defaults, checks, indexes, conditions of triggers, rules, policies.
  written_trees(relation, tree) AS (
    SELECT adrelid, adbin::text FROM pg_attrdef WHERE adrelid >= ${own}
    UNION ALL
    SELECT conrelid, conbin::text FROM pg_constraint WHERE conrelid >= ${own} AND conbin IS NOT NULL
    UNION ALL
    SELECT indrelid, concat(indexprs, indpred) FROM pg_index WHERE indrelid >= ${own} AND (indexprs IS NOT NULL OR indpred IS NOT NULL)
    UNION ALL
    SELECT tgrelid, tgqual::text FROM pg_trigger WHERE tgrelid >= ${own} AND tgqual IS NOT NULL
    UNION ALL
    SELECT r.ev_class, concat(r.ev_action, r.ev_qual) FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE r.ev_class >= ${own} AND (r.ev_type <> '1' OR c.relkind = 'm')
    UNION ALL
    SELECT polrelid, concat(polqual, polwithcheck) FROM pg_policy
  ),
  leaving AS MATERIALIZED (
    SELECT class, oid, trace FROM (
      SELECT 'function' AS class, oid, CASE
        WHEN volatile AND NOT known THEN CASE WHEN text ~* ${literal(prepares)} THEN 5 ELSE 1 END
        WHEN text !~* ${literal(suspicious)} THEN NULL
        WHEN text ~* ${literal(prepares)} THEN 5
        WHEN volatile AND text ~* ${literal(putTogether)} OR text ~* ${literal(hidden)} OR
          CASE WHEN text ~* 'set_config' THEN regexp_replace(text, ${literal(setsLocally)}, '', 'gi') ELSE text END ~* ${literal(untilClosed)} THEN 1
        WHEN text ~* ${literal(untilTheEnd)} THEN 0
      END | CASE WHEN text ~* ${literal(sets)} THEN 2 ELSE 0 END AS trace
      FROM texts
      UNION ALL
      SELECT 'function', p.oid, 1 FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_type t ON t.oid = p.prorettype
      WHERE p.oid >= ${own} AND l.lanname = 'c' AND p.provolatile = 'v' AND t.typname !~ '_handler$'
        AND NOT 'internal'::regtype = ANY (p.proargtypes) AND p.oid NOT IN (SELECT oid FROM extensions)
      UNION ALL
      SELECT CASE WHEN c.owner IN ('view', 'policy') THEN 'relation' ELSE c.owner END, c.oid, s.trace
      FROM calls c JOIN setting s ON s.oid = c.function
      UNION ALL
      SELECT 'written', oid, 3 FROM refs WHERE owner = 'view' AND field = 'relid' AND id = 'pg_settings'::regclass
      UNION ALL
      SELECT 'written', relation, 1 FROM written_trees
      WHERE tree ~ (SELECT ':(aggfnoid|funcid|opfuncid|winfnoid) (' || string_agg(oid::text, '|') || ')\\M' FROM setting)
    ) s WHERE trace IS NOT NULL
  ),
  -- What a body may name, and how.
  named AS MATERIALIZED (
    SELECT 'function' AS class, oid, ${wordOf("proname::text")} AS word, proname::text ~ '^[[:alnum:]_$]+$' AS is_called, false AS volatile
    FROM pg_proc WHERE oid >= ${own} AND prorettype <> 'trigger'::regtype
    UNION ALL
    SELECT k.class, c.oid, ${wordOf("c.relname::text")}, false, k.volatile
    FROM pg_class c JOIN (VALUES ('relation', false), ('written', true)) k(class, volatile) ON k.volatile OR c.relkind = 'v' OR c.relrowsecurity
      OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND atttypid >= ${own})
    WHERE c.oid >= ${own} AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT 'conversion', t.oid, ${wordOf("t.typname::text")}, false, false
    FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE t.oid >= ${own} AND t.typcategory <> 'A' AND coalesce(c.relkind, 'c') = 'c'
  ),
  owners(class, oid, relation) AS (
    SELECT 'pg_attrdef'::regclass, oid, adrelid FROM pg_attrdef
    UNION ALL
    SELECT 'pg_constraint'::regclass, oid, conrelid FROM pg_constraint WHERE contype NOT IN ('f', 'n')
    UNION ALL
    SELECT 'pg_class'::regclass, indexrelid, indrelid FROM pg_index
    UNION ALL
    SELECT 'pg_trigger'::regclass, oid, tgrelid FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'
    UNION ALL
    SELECT 'pg_rewrite'::regclass, oid, ev_class FROM pg_rewrite
    UNION ALL
    SELECT 'pg_policy'::regclass, oid, polrelid FROM pg_policy
    UNION ALL
    -- Before PostgreSQL 15 what a generated column calls is with the column; what a partition key calls is with the table.
    SELECT 'pg_class'::regclass, oid, oid FROM pg_class WHERE relkind IN ('r', 'p')
  ),
  -- A relation is \`written\` where something is written to it.
  leads(class, oid, target_class, target) AS MATERIALIZED (
    SELECT class, oid, target_class, target FROM uses
    UNION ALL
    SELECT 'written', oid, 'relation', oid FROM pg_class WHERE oid >= ${own}
    UNION ALL
    SELECT 'written', inhparent, 'written', inhrelid FROM pg_inherits
    UNION ALL
    SELECT 'written', confrelid, 'written', conrelid FROM pg_constraint
    WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
    UNION ALL
    SELECT 'written', attrelid, 'conversion', atttypid FROM pg_attribute WHERE attrelid >= ${own} AND atttypid >= ${own}
    UNION ALL
    SELECT 'written', o.relation, k.class, d.refobjid FROM owners o
    JOIN pg_depend d ON d.classid = o.class AND d.objid = o.oid AND d.refobjid >= ${own}
    JOIN (VALUES ('pg_proc'::regclass, 'function'), ('pg_operator'::regclass, 'operator'), ('pg_type'::regclass, 'conversion'),
      ('pg_class'::regclass, 'relation'), ('pg_class'::regclass, 'written')) k(catalog, class) ON k.catalog = d.refclassid
    WHERE k.class <> 'written' OR o.class = 'pg_rewrite'::regclass
    UNION ALL
    SELECT DISTINCT 'function', t.oid, n.class, n.oid
    FROM texts t CROSS JOIN LATERAL (SELECT DISTINCT w FROM string_to_table(${words("t.text")}, ' ') w) w
    JOIN named n ON n.word = rtrim(w, '(')
    WHERE (right(w, 1) = '(' OR NOT n.is_called) AND (t.volatile OR NOT n.volatile)
    UNION ALL
    SELECT 'function', t.oid, 'operator', o.oid FROM texts t JOIN pg_operator o ON o.oid >= ${own} AND strpos(t.text, o.oprname) > 0
  ),
  left_behind AS MATERIALIZED (
    WITH RECURSIVE found AS (
      SELECT class, oid, trace FROM leaving
      UNION
      SELECT l.class, l.oid, f.trace FROM found f JOIN leads l ON l.target_class = f.class AND l.target = f.oid
    )
    SELECT class, oid, bit_or(trace) AS trace FROM found GROUP BY 1, 2
  )`

/**
 * Functions that are labelled IMMUTABLE and read a setting, if by what they call, and everything that reaches one. The planner
 * puts the value of such a function into the plan: under the name of a prepared statement it is there for whose setting is
 * another one.
 */
export const folds = `
  reading AS MATERIALIZED (
    WITH RECURSIVE found AS (
      SELECT 'function' AS class, oid FROM texts WHERE text ~* 'current_setting|pg_settings|execute' AND text ~* ${literal(readsSettings)}
      UNION
      SELECT 'function', oid FROM pg_proc WHERE oid < ${own} AND proname IN ('current_setting', 'pg_show_all_settings')
      UNION
      SELECT 'relation', 'pg_settings'::regclass::oid
      UNION
      SELECT l.class, l.oid FROM found f JOIN leads l ON l.target_class = f.class AND l.target = f.oid
    )
    SELECT class, oid FROM found
  ),
  folding AS MATERIALIZED (
    SELECT p.oid FROM reading r JOIN pg_proc p ON p.oid = r.oid
    WHERE r.class = 'function' AND p.oid >= ${own} AND p.provolatile = 'i' AND p.oid NOT IN (SELECT oid FROM extensions)
  ),
  folded AS MATERIALIZED (
    WITH RECURSIVE found AS (
      SELECT 'function' AS class, oid FROM folding
      UNION
      SELECT l.class, l.oid FROM found f JOIN leads l ON l.target_class = f.class AND l.target = f.oid
    )
    SELECT class, oid FROM found
  )`

/** Their names, and what a person has to change; NULL for nothing. */
export const foldsObject = `(SELECT json_build_object(
    'names', (SELECT json_agg(DISTINCT name) FROM (
      SELECT p.proname AS name FROM folded f JOIN pg_proc p ON p.oid = f.oid WHERE f.class = 'function' AND p.prorettype <> 'trigger'::regtype
      UNION ALL
      SELECT t.typname FROM folded f JOIN pg_type t ON t.oid = f.oid WHERE f.class IN ('type', 'conversion')
      UNION ALL
      SELECT o.oprname FROM folded f JOIN pg_operator o ON o.oid = f.oid WHERE f.class = 'operator'
      UNION ALL
      SELECT c.relname FROM folded f JOIN pg_class c ON c.oid = f.oid
      WHERE f.class IN ('relation', 'written') AND c.oid >= ${own} AND c.relkind IN ('r', 'p', 'v', 'm', 'f')) n),
    'functions', (SELECT json_agg(json_build_object(
      'name', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
      'policies', (SELECT coalesce(json_agg(DISTINCT format('%I on %s', y.polname, y.polrelid::regclass)), '[]')
        FROM pg_depend d JOIN pg_policy y ON y.oid = d.objid
        WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid)
    ) ORDER BY n.nspname, p.proname, p.oid) FROM folding f JOIN pg_proc p ON p.oid = f.oid JOIN pg_namespace n ON n.oid = p.pronamespace)
  ) WHERE EXISTS (SELECT FROM folding))`

/** The same as reasons for which a statement is no read. */
export const stateSeeds = `
    SELECT class, oid, CASE WHEN class IN ('function', 'operator', 'relation') THEN 'which ' ELSE '' END, 'session',
      'may set something on its connection'
    FROM left_behind WHERE class <> 'written'`

const byName = (names: string) =>
  `(SELECT coalesce(json_object_agg(name, ${asObject("trace")} ORDER BY name), '{}')
      FROM (SELECT name, bit_or(trace) AS trace FROM (${names}) n GROUP BY 1) n)`

const relations = (kind: string) =>
  byName(`SELECT c.relname AS name, l.trace FROM left_behind l JOIN pg_class c ON c.oid = l.oid
    WHERE l.class = '${kind}' AND c.oid >= ${own} AND c.relkind IN ('r', 'p', 'v', 'm', 'f')`)

/** What is left behind by what a statement names, and by changes of the schema; NULL for nothing. */
export const leaves = `(SELECT json_build_object(
    'names', ${byName(`
      SELECT p.proname AS name, l.trace FROM left_behind l JOIN pg_proc p ON p.oid = l.oid
      WHERE l.class = 'function' AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
      UNION ALL
      SELECT t.typname, l.trace FROM left_behind l JOIN pg_type t ON t.oid = l.oid WHERE l.class IN ('type', 'conversion')
      UNION ALL
      SELECT o.oprname, l.trace FROM left_behind l JOIN pg_operator o ON o.oid = l.oid WHERE l.class = 'operator'`)},
    'read', ${relations("relation")},
    'written', ${relations("written")},
    'schemaChange', (SELECT ${asObject("bit_or(l.trace)")} FROM left_behind l JOIN pg_event_trigger e ON e.evtfoid = l.oid
      WHERE l.class = 'function' AND e.evtenabled <> 'D' AND e.evtevent <> 'login' HAVING count(*) > 0)
  ) WHERE EXISTS (SELECT FROM left_behind))`
