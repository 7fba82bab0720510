import * as Builtins from "./builtins.js"
import * as Rules from "./rules.js"
import { folds, foldsObject, leaves, literal, own, portable, state, stateSeeds } from "./stateQuery.js"

const array = (names: Iterable<string>) => `'{${[...names].map((name) => `"${name}"`).join(",")}}'::text[]`

/** Written in C, and not to be called by SQL: what it does it does for the server's own machinery. */
const trusted = (p: string) =>
  `(${p}.prolang IN (SELECT oid FROM pg_language WHERE lanname IN ('c', 'internal'))
    AND ('internal'::regtype = ANY (${p}.proargtypes) OR ${p}.oid IN (SELECT oid FROM extensions)))`

/**
 * The functions that a read must not reach: PostgreSQL's own by the rules, users' by their volatility. `pg_depend` does not
 * record what depends on PostgreSQL's own functions, so the other steps look for these oids in the stored expressions.
 */
const functions = `
  extensions AS MATERIALIZED (
    SELECT d.objid AS oid, e.extname AS name FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
  ),
  rated AS MATERIALIZED (
    SELECT p.oid, p.proname::text, p.oid < ${own} AS builtin, p.provolatile = 'v' AS volatile,
      x.name || '.' || p.proname AS extended,
      p.proname::text = ANY (${array(Rules.local)})
        OR p.proname::text LIKE 'pg_%' AND p.proname::text ~ ${literal(Rules.localPrefix.source)}
          AND p.proname::text <> ALL (${array(Rules.harmless)}) AS local
    FROM pg_proc p LEFT JOIN extensions x ON x.oid = p.oid
  ),
  direct AS MATERIALIZED (
    SELECT oid, CASE WHEN builtin AND local THEN 'session' ELSE 'write' END AS kind, 'calls ' || proname AS reason
    FROM rated
    WHERE CASE
      WHEN builtin THEN proname <> ALL (${array(Rules.harmless)})
        AND (volatile OR local OR proname = ANY (${array([...Rules.hiddenSql, ...Rules.hiddenTypes, ...Rules.hiddenTypeNames, ...Rules.hiddenClasses])}))
      ELSE volatile AND coalesce(extended, '') <> ALL (${array(Rules.harmlessOfExtensions)})
        OR extended = ANY (${array(Rules.deniedOfExtensions)})
    END
  )`

/**
 * What the node trees of stored expressions refer to: views, policies, the constraints of domains, the defaults of
 * arguments, the bodies of functions that are stored as trees (BEGIN ATOMIC). Every field that holds a type counts: values
 * are converted where no cast is written (\`coltypes\`, \`funcresulttype\`, ...).
 */
const references = `
  expressions AS MATERIALIZED (
    SELECT 'view' AS owner, r.ev_class AS oid, r.ev_action::text AS tree
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE r.ev_class >= ${own} AND r.ev_type = '1' AND c.relkind = 'v'
    UNION ALL
    SELECT 'policy', p.polrelid, p.polqual::text FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
    WHERE p.polcmd IN ('*', 'r') AND p.polqual IS NOT NULL AND c.relrowsecurity
    UNION ALL
    SELECT 'type', contypid, conbin::text FROM pg_constraint WHERE contypid >= ${own} AND conbin IS NOT NULL
    UNION ALL
    SELECT 'function', oid, proargdefaults::text FROM pg_proc WHERE oid >= ${own} AND proargdefaults IS NOT NULL
    UNION ALL
    SELECT 'function', oid, prosqlbody::text FROM pg_proc WHERE oid >= ${own} AND prosqlbody IS NOT NULL
  ),
  tokens AS (
    SELECT DISTINCT e.owner, e.oid, split_part(t, ' ', 1) AS field, t AS token
    FROM expressions e, string_to_table(e.tree, ' :') t
    WHERE split_part(t, ' ', 1) ~ '^(aggfnoid|funcid|opfuncid|tsmhandler|winfnoid|(start|end)InRangeFunc|eqop|opno|opnos|sortop|relid|typid|typeId|\\w*types?|\\w*_typeid)$'
  ),
  refs AS MATERIALIZED (
    SELECT owner, oid, field, m[1]::oid AS id FROM tokens, regexp_matches(token, '\\d+', 'g') m
  ),
  calls AS MATERIALIZED (
    SELECT owner, oid, id AS function FROM refs
    WHERE field IN ('aggfnoid', 'funcid', 'opfuncid', 'tsmhandler', 'winfnoid', 'startInRangeFunc', 'endInRangeFunc')
  ),
  mentions AS (
    SELECT DISTINCT owner, oid, id AS type FROM refs WHERE id >= ${own} AND field ~ 'type|typid'
  )`

/** The functions and operators of operator families that are not PostgreSQL's own, and of those that users added to. */
const families = `
  support AS MATERIALIZED (
    SELECT amprocfamily AS family, amproclefttype AS type, amproc::oid AS function FROM pg_amproc
    WHERE amproc >= ${own} OR amprocfamily >= ${own}
    UNION
    SELECT a.amopfamily, unnest(ARRAY[a.amoplefttype, a.amoprighttype]), o.oprcode::oid
    FROM pg_amop a JOIN pg_operator o ON o.oid = a.amopopr WHERE o.oid >= ${own} OR a.amopfamily >= ${own}
  ),
  supported AS MATERIALIZED (
    SELECT c.oid AS class, c.opcdefault AS is_default, c.opcintype AS type, s.function
    FROM pg_opclass c JOIN support s ON s.family = c.opcfamily JOIN pg_proc p ON p.oid = s.function
    WHERE NOT ${trusted("p")}
  )`

/** A name as it is written in a text, as the catalog has it. */
const asWritten = (word: string) =>
  `(CASE WHEN left(${word}, 1) = '"' THEN replace(substr(${word}, 2, length(${word}) - 2), '""', '"')
    ELSE lower(${word} COLLATE "C") END)::name`

/**
 * What the bodies of SQL functions name that are stored as texts. PostgreSQL does not compare them with what is declared: a STABLE
 * function may call a volatile one. The words are looked at with comments and without, as a literal may hold what looks like
 * one. What an extension declares is believed.
 */
const bodies = `
  bodies AS MATERIALIZED (
    SELECT p.oid, p.prosrc || CASE WHEN p.prosrc ~ '--|/\\*' THEN
      ' ' || regexp_replace(regexp_replace(p.prosrc, '/\\*.*?\\*/', ' ', 'g'), '--[^\n]*', ' ', 'g') ELSE '' END AS text
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.oid >= ${own} AND l.lanname = 'sql' AND p.prosqlbody IS NULL AND p.provolatile <> 'v' AND p.prokind = 'f'
      AND p.oid NOT IN (SELECT oid FROM extensions)
  ),
  body_words AS MATERIALIZED (
    SELECT oid, ${asWritten("word")} AS name, bool_or(is_call) AS is_call, bool_or(is_attribute) AS is_attribute FROM (
      SELECT DISTINCT b.oid, m[2] AS word, m[3] <> '' AS is_call, m[1] <> '' AS is_attribute
      FROM bodies b, regexp_matches(b.text, '(\\.?)\\s*([[:word:]$]+|"(?:[^"]|"")+")\\s*(\\(?)', 'g') m
    ) w GROUP BY 1, 2
  )`

/**
 * What uses what: a thing is not fine in a read as soon as one that it uses is not. A \`type\` is one whose values must not
 * be met with at all, a \`conversion\` only what values are converted to.
 */
const uses = `
  uses(class, oid, link, target_class, target) AS MATERIALIZED (
    -- CREATE AGGREGATE marks an aggregate immutable whatever its parts are; a default is evaluated by the caller's statement.
    SELECT 'function', g.oid, 'which ', 'function', g.part FROM (
      SELECT aggfnoid::oid AS oid, unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn, aggmtransfn,
        aggminvtransfn, aggmfinalfn]::oid[]) AS part
      FROM pg_aggregate WHERE aggfnoid >= ${own}
    ) g JOIN pg_proc p ON p.oid = g.part WHERE NOT ${trusted("p")}
    UNION
    SELECT 'function', aggfnoid, 'whose type ', 'conversion', unnest(ARRAY[aggtranstype, aggmtranstype])
    FROM pg_aggregate WHERE aggfnoid >= ${own}
    UNION
    SELECT 'function', p.oid, 'whose type ', 'conversion', t FROM pg_proc p,
      unnest(p.prorettype || coalesce(p.proallargtypes, p.proargtypes::oid[])) t
    WHERE p.oid >= ${own} AND t >= ${own}
    UNION
    SELECT CASE WHEN owner IN ('view', 'policy') THEN 'relation' ELSE owner END, oid,
      CASE owner WHEN 'policy' THEN 'whose policy ' ELSE 'which ' END, 'function', function FROM calls
    UNION
    SELECT CASE WHEN owner IN ('view', 'policy') THEN 'relation' ELSE owner END, oid,
      CASE owner WHEN 'policy' THEN 'whose policy ' ELSE 'which ' END, 'operator', id FROM refs
    WHERE field IN ('eqop', 'opno', 'opnos', 'sortop') AND id >= ${own}
    UNION
    SELECT 'function', b.oid, 'which ', 'function', f.oid FROM body_words b JOIN pg_proc f ON f.proname = b.name
    WHERE b.is_call AND (f.oid >= ${own} OR f.oid IN (SELECT oid FROM direct))
    UNION
    SELECT 'function', b.oid, 'which ', 'function', f.oid
    FROM body_words b JOIN pg_proc f ON f.proname = b.name JOIN pg_type t ON t.oid = f.proargtypes[0]
    WHERE b.is_attribute AND f.oid >= ${own} AND t.typtype IN ('c', 'p', 'd') AND 1 BETWEEN f.pronargs - f.pronargdefaults AND f.pronargs
    UNION
    SELECT 'function', b.oid, 'which ', 'relation', c.oid FROM body_words b JOIN pg_class c ON c.relname = b.name
    WHERE c.oid >= ${own} OR c.relnamespace = 'pg_catalog'::regnamespace
    UNION
    SELECT 'function', b.oid, 'which converts to a type that ', 'conversion', t.oid
    FROM body_words b JOIN pg_type t ON t.typname = b.name WHERE t.oid >= ${own}
    UNION
    SELECT 'function', b.oid, 'which ', 'operator', o.oid FROM bodies b JOIN pg_operator o ON o.oid >= ${own}
    WHERE strpos(b.text, o.oprname) > 0 AND o.oprcode::oid NOT IN (SELECT oid FROM extensions)
    -- The planner puts a negator or a commutator in an operator's place; sorting and hashing call what is with it in a family.
    UNION
    SELECT 'operator', oid, 'which ', 'function', oprcode FROM pg_operator WHERE oid >= ${own}
    UNION
    SELECT 'operator', o.oid, 'whose ' || CASE r.oid WHEN o.oprnegate THEN 'negator ' ELSE 'commutator ' END, 'function', r.oprcode
    FROM pg_operator o JOIN pg_operator r ON r.oid IN (o.oprnegate, o.oprcom) WHERE r.oid >= ${own}
    UNION
    SELECT 'operator', a.amopopr, 'whose operator family ', 'function', s.function
    FROM pg_amop a JOIN support s ON s.family = a.amopfamily JOIN pg_proc p ON p.oid = s.function
    WHERE a.amopopr >= ${own} AND NOT ${trusted("p")}
    UNION
    SELECT CASE WHEN owner IN ('view', 'policy') THEN 'relation' ELSE owner END, oid,
      CASE owner WHEN 'policy' THEN 'whose policy ' ELSE 'which ' END || 'converts to a type that ', 'conversion', type FROM mentions
    UNION
    SELECT CASE WHEN owner IN ('view', 'policy') THEN 'relation' ELSE owner END, oid,
      CASE owner WHEN 'policy' THEN 'whose policy ' ELSE 'which ' END, 'relation', id FROM refs WHERE field = 'relid' AND owner <> 'type'
    -- A value of the type may be cast without a cast in the text.
    UNION
    SELECT CASE WHEN t.oid >= ${own} AND (c.castcontext = 'i' OR c.casttarget < ${own}) THEN 'type' ELSE 'conversion' END,
      t.oid, '', 'function', c.castfunc
    FROM pg_cast c JOIN pg_type t ON t.oid IN (c.castsource, c.casttarget)
    WHERE CASE WHEN t.oid = c.casttarget THEN t.oid >= ${own} OR c.castsource < ${own}
      ELSE t.oid >= ${own} AND (c.castcontext = 'i' OR c.casttarget < ${own}) END
    UNION
    SELECT 'type', s.type, '', 'function', s.function FROM support s JOIN pg_proc p ON p.oid = s.function
    WHERE s.type >= ${own} AND NOT ${trusted("p")}
    UNION
    SELECT 'type', r.type, '', 'function', s.function
    FROM (SELECT rngtypid AS type, rngsubopc FROM pg_range UNION ALL SELECT rngmultitypid, rngsubopc FROM pg_range) r
    JOIN supported s ON s.class = r.rngsubopc WHERE r.type >= ${own}
    UNION
    SELECT 'type', rngtypid, '', 'function', f.oid FROM pg_range JOIN pg_proc f ON f.oid IN (rngcanonical, rngsubdiff)
    WHERE rngtypid >= ${own} AND NOT ${trusted("f")}
    UNION
    SELECT 'conversion', oid, '', 'type', oid FROM pg_type WHERE oid >= ${own}
    UNION
    SELECT c.class, t.oid, '', c.class, t.target
    FROM (VALUES ('type'), ('conversion')) c(class), (
      SELECT oid, unnest(ARRAY[typelem, typbasetype]) AS target FROM pg_type
      UNION ALL
      SELECT k.reltype, a.atttypid FROM pg_attribute a JOIN pg_class k ON k.oid = a.attrelid
      WHERE a.attrelid >= ${own} AND a.attnum > 0 AND NOT a.attisdropped AND k.reltype <> 0
      UNION ALL
      SELECT unnest(ARRAY[rngtypid, rngmultitypid]), rngsubtype FROM pg_range
    ) t WHERE t.oid >= ${own} AND t.target >= ${own}
    UNION
    SELECT 'relation', attrelid, 'which has a column of a type that ', 'type', atttypid FROM pg_attribute
    WHERE attrelid >= ${own} AND attnum > 0 AND NOT attisdropped AND atttypid >= ${own}
    UNION
    SELECT 'relation', oid, 'whose row type ', 'type', reltype FROM pg_class WHERE oid >= ${own} AND reltype <> 0
    UNION
    SELECT 'relation', inhparent, 'which ', 'relation', inhrelid FROM pg_inherits
    UNION
    SELECT 'relation', i.oid, 'which has an index that ', 'function', s.function FROM (
      SELECT indrelid AS oid, unnest(indclass::oid[]) AS class FROM pg_index WHERE indrelid >= ${own}
      UNION ALL
      SELECT partrelid, unnest(partclass::oid[]) FROM pg_partitioned_table
    ) i JOIN supported s ON s.class = i.class
  )`

/** What is not fine in a read, and why. */
const unfit = `
  seeds AS (
    SELECT 'function' AS class, oid, NULL AS link, kind, reason FROM direct
    UNION ALL
    SELECT 'relation', oid, NULL, 'session',
      CASE relkind WHEN 'S' THEN 'reads sequence ' WHEN 'f' THEN 'reads foreign table ' ELSE 'reads unlogged table ' END || relname
    FROM pg_class
    WHERE oid >= ${own} AND (relkind IN ('S', 'f') OR relpersistence = 'u' AND relkind IN ('r', 'm'))
    UNION ALL
    SELECT 'relation', oid, NULL, 'session', 'reads ' || relname FROM pg_class
    WHERE oid < ${own} AND relnamespace = 'pg_catalog'::regnamespace AND relname <> ALL (${array(Builtins.catalogRelations)})
    UNION ALL
    SELECT 'relation', oid, CASE owner WHEN 'policy' THEN 'whose policy ' ELSE 'which ' END, 'write', 'has a locking clause'
    FROM expressions WHERE owner IN ('view', 'policy') AND tree ~ ':hasForUpdate true'
    UNION ALL${stateSeeds}
  ),
  closure AS MATERIALIZED (
    WITH RECURSIVE bad AS (
      SELECT class, oid, link, kind, reason FROM seeds
      UNION
      SELECT u.class, u.oid, u.link, b.kind, b.reason FROM bad b JOIN uses u ON u.target_class = b.class AND u.target = b.oid
    )
    SELECT DISTINCT ON (class, oid) * FROM bad ORDER BY class, oid, kind DESC, link NULLS FIRST, reason
  ),
  all_bad_functions AS MATERIALIZED (
    SELECT c.oid, c.kind, coalesce('calls ' || p.proname || ', ' || c.link, '') || c.reason AS reason
    FROM closure c JOIN pg_proc p ON p.oid = c.oid WHERE c.class = 'function'
  ),
  bad_types AS MATERIALIZED (
    SELECT oid, kind, reason FROM closure WHERE class = 'conversion'
    UNION ALL
    SELECT oid, kind, reason FROM closure WHERE class = 'type' AND oid < ${own}
  ),
  bad_relations AS MATERIALIZED (
    SELECT c.oid, c.kind, coalesce('reads ' || k.relname || ', ' || c.link, '') || c.reason AS reason
    FROM closure c JOIN pg_class k ON k.oid = c.oid WHERE c.class = 'relation' AND c.oid >= ${own}
  ),
  -- What a superuser has put between PostgreSQL's own types may be part of any statement.
  everywhere AS (
    SELECT b.kind, 'a cast between types of PostgreSQL ' || b.reason AS reason FROM pg_cast c
    JOIN all_bad_functions b ON b.oid = c.castfunc
    WHERE c.castsource < ${own} AND c.casttarget < ${own} AND c.castcontext = 'i'
    UNION ALL
    SELECT b.kind, 'the operator class of a type of PostgreSQL ' || b.reason FROM supported s
    JOIN all_bad_functions b ON b.oid = s.function WHERE s.is_default AND s.type < ${own}
  )`

/**
 * One row a name: what several overloads in one schema are together. Temporary objects are left out: they come and go, and
 * what is not in the snapshot is no read either.
 */
const names = `
  schemas AS MATERIALIZED (
    SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp_|toast_temp_)'
  ),
  function_names AS (
    SELECT DISTINCT ON (n.nspname, p.proname) n.nspname AS schema, p.proname AS name, b.kind, b.reason
    FROM pg_proc p JOIN schemas n ON n.oid = p.pronamespace LEFT JOIN all_bad_functions b ON b.oid = p.oid
    WHERE p.oid >= ${own} AND p.prokind <> 'p'
      AND (NOT 'internal'::regtype = ANY (p.proargtypes) OR p.prorettype = 'tsm_handler'::regtype)
      AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
    ORDER BY n.nspname, p.proname, b.kind DESC NULLS LAST, b.reason
  ),
  relation_names AS (
    SELECT n.nspname AS schema, c.relname AS name, b.kind, b.reason
    FROM pg_class c JOIN schemas n ON n.oid = c.relnamespace LEFT JOIN bad_relations b ON b.oid = c.oid
    WHERE c.oid >= ${own} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  ),
  type_names AS (
    SELECT n.nspname AS schema, t.typname AS name, b.kind, 'converts to ' || t.typname || ', which ' || b.reason AS reason
    FROM pg_type t JOIN schemas n ON n.oid = t.typnamespace LEFT JOIN bad_types b ON b.oid = t.oid
    LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE b.oid IS NOT NULL OR t.oid >= ${own} AND (t.typcategory <> 'A' OR t.typtype = 'd') AND coalesce(c.relkind, 'c') = 'c'
  ),
  operator_names AS (
    SELECT DISTINCT ON (o.oprname) o.oprname AS name, c.kind, 'uses operator ' || o.oprname || ', ' || c.link || c.reason AS reason
    FROM closure c JOIN pg_operator o ON o.oid = c.oid WHERE c.class = 'operator'
    ORDER BY o.oprname, c.kind DESC, c.reason
  ),
  attribute_names AS (
    SELECT DISTINCT ON (name) name, kind, reason, scalar FROM (
      SELECT p.proname AS name, b.kind, b.reason, t.typtype NOT IN ('c', 'p', 'd') AND NOT EXISTS (
          SELECT FROM pg_cast c JOIN pg_type s ON s.oid = c.castsource
          WHERE c.casttarget = t.oid AND c.castcontext = 'i' AND s.typtype = 'c'
        ) AS scalar
      FROM pg_proc p JOIN all_bad_functions b ON b.oid = p.oid
      JOIN pg_type t ON t.oid = CASE WHEN p.pronargs = 1 AND p.provariadic <> 0 THEN p.provariadic ELSE p.proargtypes[0] END
      WHERE p.oid >= ${own} AND 1 BETWEEN p.pronargs - p.pronargdefaults AND p.pronargs
      UNION ALL
      SELECT name, kind, reason, false FROM type_names WHERE kind IS NOT NULL
    ) a ORDER BY name, scalar, kind DESC, reason
  )`

const bySchema = (names: string) => `(
    SELECT coalesce(json_object_agg(schema, objects), '{}') FROM (
      SELECT schema, json_build_object(
        'reads', coalesce(json_agg(name ORDER BY name) FILTER (WHERE kind IS NULL), '[]'),
        'others', coalesce(json_object_agg(name, json_build_object('kind', kind, 'reason', reason) ORDER BY name)
          FILTER (WHERE kind IS NOT NULL), '{}')
      ) AS objects FROM ${names} GROUP BY schema ORDER BY schema
    ) s)`

/** One row, one column of text, one round trip; nothing in it needs a privilege. From PostgreSQL 14 on. */
export const catalogQuery = portable(`
WITH
${[functions, references, families, bodies, uses, state, folds, unfit, names].map((step) => step.slice(1)).join(",\n")}
SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'standardStrings', current_setting('standard_conforming_strings') = 'on',
  'volatileBuiltins', (SELECT json_agg(DISTINCT proname) FROM rated WHERE builtin AND volatile),
  'functions', ${bySchema("function_names")},
  'relations', ${bySchema("relation_names")},
  'types', ${bySchema("type_names")},
  'operators', (SELECT coalesce(json_object_agg(name, json_build_object('kind', kind, 'reason', reason)), '{}') FROM operator_names),
  'attributes', (SELECT coalesce(json_object_agg(name,
    json_build_object('kind', kind, 'reason', reason, 'scalar', scalar)), '{}') FROM attribute_names),
  'leaves', ${leaves},
  'folds', ${foldsObject},
  'everywhere', (SELECT json_build_object('kind', kind, 'reason', reason) FROM everywhere ORDER BY kind DESC, reason LIMIT 1)
)::text AS catalog`)

/**
 * How many objects with a name of their own there are, and the sum of the transactions that wrote their rows: it is another
 * one as soon as one was made, altered, renamed or dropped.
 */
export const stampQuery = `
SELECT concat_ws(' ', ${[
  "pg_class t WHERE t.relpersistence <> 't' AND t.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND",
  "pg_proc t WHERE",
  "pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname !~ '^pg_(temp|toast_temp)_' AND"
]
  .map((from) => `(SELECT count(*) || '/' || coalesce(sum(t.xmin::text::bigint), 0) FROM ${from} t.oid >= ${own})`)
  .join(",\n  ")}) AS stamp`
