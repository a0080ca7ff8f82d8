"""The queries that read a shard's catalogue. All names are qualified, so that no search_path changes what they ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SEPARATOR: Final = "\x01"  # between the names of one value

COLUMNS_QUERY: Final = """
SELECT n.nspname, c.relname, c.relkind, a.attname, a.atttypid, a.atttypmod,
       coalesce(k.collname IN ('C', 'POSIX') OR k.collprovider = 'b'
                OR (k.collprovider = 'd' AND (SELECT d.datcollate IN ('C', 'POSIX') FROM pg_catalog.pg_database d
                                              WHERE d.datname = pg_catalog.current_database())), true),
       coalesce(NOT k.collisdeterministic, false),
       -- without the relation: that would wait for whoever alters the table
       CASE WHEN a.attgenerated = '' THEN coalesce(pg_catalog.pg_get_expr(f.adbin, 0), '') ELSE '' END,
       a.attidentity <> '', a.attgenerated <> '', a.attnotnull
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_collation k ON k.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND c.relpersistence <> 't'
 ORDER BY n.nspname, c.relname, a.attnum"""

INDEXES_QUERY: Final = """
SELECT n.nspname, c.relname, i.indisprimary,
       pg_catalog.array_to_string(ARRAY(SELECT coalesce(a.attname::text, '')
                                          FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (num, at)
                                          LEFT JOIN pg_catalog.pg_attribute a
                                            ON a.attrelid = i.indrelid AND a.attnum = k.num
                                         WHERE k.at <= i.indnkeyatts ORDER BY k.at), E'\\x01')
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE i.indisunique AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY n.nspname, c.relname, i.indexrelid"""

DEPENDENCIES_QUERY: Final = """
SELECT DISTINCT vn.nspname, v.relname, tn.nspname, t.relname
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
  JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
       AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> v.oid
  JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
 WHERE vn.nspname NOT IN ('pg_catalog', 'information_schema') AND v.relkind IN ('v', 'm')
UNION
SELECT cn.nspname, c.relname, pn.nspname, p.relname
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
  JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
  JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 ORDER BY 1, 2, 3, 4"""

# One row per kind of function, not per function: PostgreSQL has thousands of its own, and taking a row of each
# apart would hold up the event loop. An aggregate counts as immutable in pg_proc, whatever its parts are. The
# column `notation`: t.name may mean name(t).
FUNCTIONS_QUERY: Final = """
SELECT n.nspname, p.provolatile, p.kind, p.reads, p.notation, pg_catalog.string_agg(DISTINCT p.proname::text, E'\\x01')
  FROM (SELECT p.pronamespace, p.proname::text, p.prokind = 'a' AS kind,
               CASE WHEN p.prokind = 'a' AND p.oid >= 16384
                         AND EXISTS (SELECT FROM pg_catalog.pg_aggregate a
                                       JOIN pg_catalog.pg_proc s
                                         ON s.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
                                                      a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
                                      WHERE a.aggfnoid = p.oid AND s.provolatile = 'v')
                    THEN 'v' ELSE p.provolatile END AS provolatile,
               p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace AND l.lanname NOT IN ('c', 'internal') AS reads,
               p.oid >= 16384 AND EXISTS (SELECT FROM pg_catalog.pg_type t
                                           WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'd', 'p')) AS notation
          FROM pg_catalog.pg_proc p
          JOIN pg_catalog.pg_language l ON l.oid = p.prolang) p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 GROUP BY 1, 2, 3, 4, 5
 ORDER BY 1, 2, 3, 4, 5"""

# By name, as functions: the most volatile one of a name counts.
OPERATORS_QUERY: Final = """
SELECT p.provolatile, pg_catalog.string_agg(DISTINCT o.oprname::text, E'\\x01')
  FROM pg_catalog.pg_operator o
  JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
 GROUP BY 1
 ORDER BY 1"""

# What reading a relation runs beside its own text. A view's functions are found in its rule's tree, since PostgreSQL
# records no dependency on its own functions; the recorded ones add what the tree names by operator.
RELATIONS_QUERY: Final = """
SELECT n.nspname, c.relname, c.relrowsecurity, v.calls, coalesce(v.locks, false),
       EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type <> '1')
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN LATERAL (
       SELECT r.ev_action::pg_catalog.text ~ 'ROWMARKCLAUSE' AS locks,
              (SELECT pg_catalog.string_agg(DISTINCT u.name, E'\\x01')
                 FROM (SELECT p.proname::text AS name
                         FROM pg_catalog.regexp_matches(r.ev_action::pg_catalog.text,
                                '(?::(?:funcid|opfuncid|aggfnoid|winfnoid|tsmhandler)) (\\d+)', 'g') AS f (found)
                         JOIN pg_catalog.pg_proc p ON p.oid = f.found[1]::pg_catalog.oid
                       UNION
                       SELECT p.proname::text
                         FROM pg_catalog.pg_depend d
                         LEFT JOIN pg_catalog.pg_operator o
                           ON o.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
                         JOIN pg_catalog.pg_proc p
                           ON p.oid = CASE WHEN d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                                           THEN d.refobjid ELSE o.oprcode END
                        WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
                       UNION
                       SELECT 'current_user'  -- it and its kin are no functions there
                        WHERE r.ev_action::pg_catalog.text ~ 'SQLVALUEFUNCTION :op (9|1[0-4]) ') u) AS calls
         FROM pg_catalog.pg_rewrite r
        WHERE r.ev_class = c.oid AND r.ev_type = '1') v ON c.relkind = 'v'
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND c.relpersistence <> 't'
 ORDER BY 1, 2"""

# Functions that run where no text shows it: casts, operator classes, input and output of types, checks of domains.
HIDDEN_QUERY: Final = """
SELECT DISTINCT p.proname
  FROM pg_catalog.pg_proc p
 WHERE p.oid >= 16384 AND p.provolatile = 'v'
   AND (p.oid IN (SELECT castfunc FROM pg_catalog.pg_cast)
        OR p.oid IN (SELECT amproc FROM pg_catalog.pg_amproc)
        OR p.oid IN (SELECT u.used FROM pg_catalog.pg_type t,
                            LATERAL (VALUES (t.typinput), (t.typoutput), (t.typreceive), (t.typsend), (t.typmodin),
                                            (t.typmodout), (t.typsubscript)) AS u (used))
        OR p.oid IN (SELECT u.used FROM pg_catalog.pg_range r,
                            LATERAL (VALUES (r.rngcanonical), (r.rngsubdiff)) AS u (used)))
UNION
SELECT DISTINCT p.proname
  FROM pg_catalog.pg_constraint k,
       LATERAL pg_catalog.regexp_matches(k.conbin::pg_catalog.text, ':(?:funcid|opfuncid) (\\d+)', 'g') AS f (found)
  JOIN pg_catalog.pg_proc p ON p.oid = f.found[1]::pg_catalog.oid
 WHERE k.contypid <> 0 AND k.contype = 'c'
 ORDER BY 1"""

TYPES_QUERY: Final = """
SELECT t.oid, n.nspname, t.typname
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY 1"""

# The names of PostgreSQL's own types, in one row.
OWN_TYPES_QUERY: Final = """
SELECT pg_catalog.string_agg(t.typname::text, E'\\x01')
  FROM pg_catalog.pg_type t
 WHERE t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.typtype <> 'c' AND t.typname !~ '^_'"""

CATALOG_QUERIES: Final[Mapping[str, str]] = {
    "columns": COLUMNS_QUERY,
    "indexes": INDEXES_QUERY,
    "dependencies": DEPENDENCIES_QUERY,
    "functions": FUNCTIONS_QUERY,
    "types": TYPES_QUERY,
    "own_types": OWN_TYPES_QUERY,
    "operators": OPERATORS_QUERY,
    "relations": RELATIONS_QUERY,
    "hidden": HIDDEN_QUERY,
}
