import * as Builtins from "./builtins.js"
import * as Rules from "./rules.js"

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

const array = (names: Iterable<string>) => `'{${[...names].map((name) => `"${name}"`).join(",")}}'::text[]`

/** Objects below this oid are PostgreSQL's own (access/transam.h, FirstNormalObjectId). */
const own = 16384

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
        OR p.proname::text LIKE 'pg_%' AND p.proname::text ~ ${literal(Rules.localPrefix.source)} AS local
    FROM pg_proc p LEFT JOIN extensions x ON x.oid = p.oid
  ),
  direct AS MATERIALIZED (
    SELECT oid, CASE WHEN builtin AND local THEN 'session' ELSE 'write' END AS kind, 'calls ' || proname AS reason
    FROM rated
    WHERE CASE
      WHEN builtin THEN proname <> ALL (${array(Rules.harmless)})
        AND (volatile OR local OR proname = ANY (${array(Rules.hiddenSql)}))
      ELSE volatile AND coalesce(extended, '') <> ALL (${array(Rules.harmlessOfExtensions)})
        OR extended = ANY (${array(Rules.hiddenSqlOfExtensions)})
    END
  )`

/** What the node trees of stored expressions refer to: views, policies, the constraints of domains, the defaults of arguments. */
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
  ),
  tokens AS (
    SELECT DISTINCT e.owner, e.oid, split_part(t, ' ', 1) AS field, t AS token
    FROM expressions e, string_to_table(e.tree, ' :') t
    WHERE split_part(t, ' ', 1) IN ('aggfnoid', 'eqop', 'funcid', 'opfuncid', 'opno', 'opnos', 'relid', 'resulttype',
      'sortop', 'tsmhandler', 'winfnoid')
  ),
  refs AS MATERIALIZED (
    SELECT owner, oid, field, m[1]::oid AS id FROM tokens, regexp_matches(token, '\\d+', 'g') m
  ),
  calls AS MATERIALIZED (
    SELECT owner, oid, id AS function FROM refs
    WHERE field IN ('aggfnoid', 'funcid', 'opfuncid', 'tsmhandler', 'winfnoid')
    UNION
    SELECT r.owner, r.oid, o.oprcode FROM refs r JOIN pg_operator o ON o.oid = r.id
    WHERE r.field IN ('eqop', 'opno', 'opnos', 'sortop') AND r.id >= ${own}
  )`

/** CREATE AGGREGATE marks an aggregate immutable whatever its parts are; a default is evaluated by the caller's statement. */
const indirect = `
  parts AS (
    SELECT aggfnoid::oid AS oid, unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn, aggmtransfn,
      aggminvtransfn, aggmfinalfn]::oid[]) AS part
    FROM pg_aggregate WHERE aggfnoid >= ${own}
    UNION ALL
    SELECT oid, function FROM calls WHERE owner = 'function'
  ),
  bad_functions AS MATERIALIZED (
    SELECT oid, kind, reason FROM direct
    UNION ALL
    SELECT p.oid, d.kind, 'calls ' || f.proname || ', which ' || d.reason
    FROM parts p JOIN direct d ON d.oid = p.part JOIN pg_proc f ON f.oid = p.oid
  )`

/**
 * Types whose casts, constraints or operator classes call such functions. Those marked \`touch\` matter wherever a value of the
 * type is, the others only where something is converted to the type.
 */
const types = `
  type_seeds AS (
    SELECT c.contypid AS oid, false AS touch, b.kind, b.reason FROM pg_constraint c
    JOIN calls r ON r.owner = 'type' AND r.oid = c.contypid JOIN bad_functions b ON b.oid = r.function
    UNION
    SELECT t.oid, t.oid >= ${own} AND (c.castcontext = 'i' OR c.casttarget < ${own}), b.kind, b.reason
    FROM pg_cast c JOIN bad_functions b ON b.oid = c.castfunc JOIN pg_type t ON t.oid IN (c.castsource, c.casttarget)
    WHERE CASE WHEN t.oid = c.casttarget THEN t.oid >= ${own} OR c.castsource < ${own}
      ELSE t.oid >= ${own} AND (c.castcontext = 'i' OR c.casttarget < ${own}) END
    UNION
    SELECT a.amproclefttype, true, b.kind, b.reason FROM pg_amproc a JOIN bad_functions b ON b.oid = a.amproc
    WHERE a.amproclefttype >= ${own}
    UNION
    SELECT t.oid, true, b.kind, b.reason FROM pg_amop a JOIN pg_operator o ON o.oid = a.amopopr
    JOIN bad_functions b ON b.oid = o.oprcode JOIN pg_type t ON t.oid IN (a.amoplefttype, a.amoprighttype)
    WHERE t.oid >= ${own}
  ),
  bad_types AS MATERIALIZED (
    WITH RECURSIVE closure AS (
      SELECT oid, touch, kind, reason FROM type_seeds
      UNION
      SELECT n.oid, c.touch, c.kind, c.reason FROM closure c CROSS JOIN LATERAL (
        SELECT oid FROM pg_type WHERE typelem = c.oid OR typbasetype = c.oid
        UNION ALL
        SELECT k.reltype FROM pg_attribute a JOIN pg_class k ON k.oid = a.attrelid
        WHERE a.atttypid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND k.reltype <> 0
        UNION ALL
        SELECT unnest(ARRAY[rngtypid, rngmultitypid]) FROM pg_range WHERE rngsubtype = c.oid
      ) n
    )
    SELECT DISTINCT ON (oid) oid, bool_or(touch) OVER (PARTITION BY oid) AS touch, kind, reason FROM closure
    ORDER BY oid, kind DESC, reason
  ),
  all_bad_functions AS MATERIALIZED (
    SELECT DISTINCT ON (oid) oid, kind, reason FROM (
      SELECT * FROM bad_functions
      UNION ALL
      SELECT p.oid, t.kind, 'calls ' || p.proname || ', whose type ' || t.reason
      FROM bad_types t JOIN pg_proc p ON t.oid = ANY (p.proargtypes) OR t.oid = p.prorettype AND t.touch WHERE p.oid >= ${own}
    ) f ORDER BY oid, kind DESC, reason
  )`

/** Relations that a read must not reach, and whatever reaches them: views, policies, parents of partitions. */
const relations = `
  relation_seeds AS (
    SELECT oid, NULL AS link, 'session' AS kind,
      CASE relkind WHEN 'S' THEN 'reads sequence ' WHEN 'f' THEN 'reads foreign table ' ELSE 'reads unlogged table ' END || relname AS reason
    FROM pg_class
    WHERE oid >= ${own} AND (relkind IN ('S', 'f') OR relpersistence = 'u' AND relkind IN ('r', 'm'))
    UNION ALL
    SELECT oid, NULL, 'session', 'reads ' || relname FROM pg_class
    WHERE oid < ${own} AND relnamespace = 'pg_catalog'::regnamespace AND relname <> ALL (${array(Builtins.catalogRelations)})
    UNION ALL
    SELECT c.oid, link, b.kind, b.reason FROM calls c JOIN links USING (owner) JOIN all_bad_functions b ON b.oid = c.function
    UNION ALL
    SELECT oid, link, 'write', 'has a locking clause' FROM expressions JOIN links USING (owner)
    WHERE tree ~ ':hasForUpdate true'
    UNION ALL
    SELECT r.oid, link, t.kind, 'converts to a type that ' || t.reason FROM refs r JOIN links USING (owner)
    JOIN bad_types t ON t.oid = r.id WHERE r.field = 'resulttype'
    UNION ALL
    SELECT a.attrelid, 'which ', t.kind, 'has a column of a type that ' || t.reason FROM bad_types t
    JOIN pg_attribute a ON a.atttypid = t.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE t.touch
  ),
  edges AS (
    SELECT oid, link, id AS target FROM refs JOIN links USING (owner) WHERE field = 'relid'
    UNION
    SELECT inhparent, 'which ', inhrelid FROM pg_inherits
  ),
  bad_relations AS MATERIALIZED (
    WITH RECURSIVE closure AS (
      SELECT oid, link, kind, reason FROM relation_seeds
      UNION
      SELECT e.oid, e.link, c.kind, c.reason FROM closure c JOIN edges e ON e.target = c.oid
    )
    SELECT DISTINCT ON (c.oid) c.oid, c.kind, coalesce('reads ' || k.relname || ', ' || c.link, '') || c.reason AS reason
    FROM closure c JOIN pg_class k ON k.oid = c.oid WHERE c.oid >= ${own} ORDER BY c.oid, c.kind DESC, c.link NULLS FIRST, c.reason
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
    WHERE b.oid IS NOT NULL OR t.oid >= ${own} AND t.typcategory <> 'A' AND coalesce(c.relkind, 'c') = 'c'
  ),
  operator_names AS (
    SELECT DISTINCT ON (o.oprname) o.oprname AS name, b.kind, 'uses operator ' || o.oprname || ', which ' || b.reason AS reason
    FROM pg_operator o JOIN all_bad_functions b ON b.oid = o.oprcode WHERE o.oid >= ${own}
    ORDER BY o.oprname, b.kind DESC, b.reason
  ),
  attribute_names AS (
    SELECT DISTINCT ON (name) name, kind, reason, scalar FROM (
      SELECT p.proname AS name, b.kind, b.reason, t.typtype NOT IN ('c', 'p', 'd') AS scalar
      FROM pg_proc p JOIN all_bad_functions b ON b.oid = p.oid JOIN pg_type t ON t.oid = p.proargtypes[0]
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
export const catalogQuery = `
WITH links(owner, link) AS (VALUES ('view', 'which '), ('policy', 'whose policy ')),
${[functions, references, indirect, types, relations, names].map((step) => step.slice(1)).join(",\n")}
SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'standardStrings', current_setting('standard_conforming_strings') = 'on',
  'volatileBuiltins', (SELECT json_agg(DISTINCT proname) FROM rated WHERE builtin AND volatile),
  'functions', ${bySchema("function_names")},
  'relations', ${bySchema("relation_names")},
  'types', ${bySchema("type_names")},
  'operators', (SELECT coalesce(json_object_agg(name, json_build_object('kind', kind, 'reason', reason)), '{}') FROM operator_names),
  'attributes', (SELECT coalesce(json_object_agg(name,
    json_build_object('kind', kind, 'reason', reason, 'scalar', scalar)), '{}') FROM attribute_names)
)::text AS catalog`
