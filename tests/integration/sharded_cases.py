"""Statements for the oracle: what must be answered as one PostgreSQL would, and what is refused so far.

A line is one script: statements divided by `;;`, run one after the other. `~` at its start: rows come in no particular
order. `!` before that: it is refused so far. A script that moves in or out of what is refused fails the test.
"""

from __future__ import annotations

TABLES = """
CREATE TABLE t (id bigint PRIMARY KEY, g int, name text COLLATE "C", n numeric, at timestamp, j jsonb, a int[]);
CREATE TABLE o (tid bigint, line int, amount numeric(12, 2), note text COLLATE "C", PRIMARY KEY (tid, line));
CREATE TABLE v (name varchar PRIMARY KEY, x int);
CREATE TABLE u (key uuid PRIMARY KEY, x int);
CREATE TABLE "Odd Name" ("Key Col" int, "Select" text);
CREATE TABLE l (region varchar, x int);
CREATE TABLE rg (n bigint, x int);
CREATE TABLE d (id bigint, made timestamptz DEFAULT '2020-01-01', word text DEFAULT 'none', twice int GENERATED ALWAYS AS (7) STORED);
CREATE TABLE k (id int PRIMARY KEY, label text);
CREATE TABLE nk (id bigint, x int);
CREATE SCHEMA other;
CREATE TABLE other.t2 (id bigint, x int);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE m (id bigint, feels mood);
"""

# name, sharding column, data type, more TOML
SHARDED = [
    ("t", "id", "bigint", ""),
    ("o", "tid", "bigint", ""),
    ("v", "name", "varchar", ""),
    ("u", "key", "uuid", ""),
    ("Odd Name", "Key Col", "bigint", ""),
    ("l", "region", "varchar", 'mapping = [{values = ["eu", "de"], shard = 0}, {values = ["us"], shard = 1}]'),
    (
        "rg",
        "n",
        "bigint",
        "mapping = [{start = 0, end = 100, shard = 0}, {start = 100, end = 200, shard = 1}, {shard = 0}]",
    ),
    ("d", "id", "bigint", ""),
    ("nk", "id", "bigint", ""),
    ("t2", "id", "bigint", 'schema = "other"'),
    ("m", "id", "bigint", ""),
]

FILL = """
INSERT INTO t VALUES (-1, 1, 'minus', 1.5, '2024-01-01 14:39:12.919160', '{"a": 1}', '{1,2}'), (0, 1, 'zero', NULL, 'infinity', NULL, NULL), (1, 2, 'One', 2.25, '-infinity', '[1, 2]', '{}'), (2, 2, 'two', 'NaN', '2024-01-01 14:39:12.9', '{"b": null}', '{{1,2},{3,4}}'), (3, NULL, NULL, 1e20, NULL, '"x"', '{NULL}'), (4, 3, 'four', -7, '2023-05-06', 'null', '{4}'), (11, 3, 'Eleven', 0.001, '2022-02-02', '1', '{5}'), (42, 4, 'answer', 42, '2021-01-01', '{}', '{6}'), (9223372036854775807, 4, 'big', 3.5, '2020-01-01', '[]', '{7}'), (-9223372036854775808, 5, 'small', 3, '2019-01-01', NULL, '{8}');;
INSERT INTO o VALUES (1, 1, 10.50, 'a'), (1, 2, 20, 'b'), (2, 1, 5.25, NULL), (3, 1, 1, 'c'), (3, 2, 2, 'd'), (4, 1, 100, 'e'), (99, 1, 7, 'orphan'), (-1, 1, 3, 'f');;
INSERT INTO v VALUES ('one', 1), ('two', 2), ('a', 3), ('', 4), ('123', 5), ('é', 6), ('test_value', 7);;
INSERT INTO u VALUES ('00000000-0000-0000-0000-000000000000', 1), ('11111111-1111-1111-1111-111111111111', 2), ('f47ac10b-58cc-4372-a567-0e02b2c3d479', 3);;
INSERT INTO "Odd Name" ("Key Col", "Select") VALUES (1, 'x'), (2, 'y'), (3, 'z');;
INSERT INTO l VALUES ('eu', 1), ('us', 2), ('de', 3), ('us', 4);;
INSERT INTO rg VALUES (0, 1), (99, 2), (100, 3), (199, 4), (500, 5), (-5, 6);;
INSERT INTO d (id) VALUES (1), (2), (3);;
INSERT INTO k VALUES (1, 'one'), (2, 'two'), (3, 'three'), (5, 'five');;
INSERT INTO nk VALUES (NULL, 1), (1, 2), (3, 3);;
INSERT INTO other.t2 VALUES (1, 1), (3, 3), (2, 2);;
INSERT INTO m VALUES (1, 'ok'), (2, 'sad'), (3, 'happy'), (4, 'ok')
"""
CONTENTS = ("t", "o", "v", "u", '"Odd Name"', "l", "rg", "d", "k", "nk", "other.t2", "m")
# On each server by itself: what FILL has made is kept, and brought back before a script that writes.
_KEPT = {name: f'"kept {name.strip(chr(34))}"' for name in CONTENTS}
_COLUMNS = {"d": "id, made, word"}
SAVE = "; ".join(f"CREATE TABLE {kept} AS SELECT {_COLUMNS.get(name, '*')} FROM {name}" for name, kept in _KEPT.items())
RESTORE = f"TRUNCATE {', '.join(CONTENTS)}; " + "; ".join(
    f"INSERT INTO {name} {'(id, made, word) ' if name == 'd' else ''}SELECT * FROM {kept}"
    for name, kept in _KEPT.items()
)

READS = r"""
SELECT * FROM t ORDER BY id
SELECT id FROM t ORDER BY name, id
SELECT id FROM t ORDER BY name DESC, id
SELECT id FROM t ORDER BY name NULLS FIRST, id
SELECT id FROM t ORDER BY name DESC NULLS LAST, id
SELECT id FROM t ORDER BY g DESC NULLS LAST, id DESC
SELECT name AS id2, id FROM t ORDER BY 2
SELECT id AS x FROM t ORDER BY x
SELECT id FROM t ORDER BY -id
!SELECT id FROM t ORDER BY lower(name), id
SELECT id FROM t ORDER BY n, id
SELECT id, n FROM t ORDER BY n DESC NULLS LAST, id
SELECT id FROM t ORDER BY at, id
SELECT id FROM t ORDER BY at DESC, id
SELECT min(at), max(at) FROM t
SELECT at, count(*) FROM t GROUP BY at ORDER BY at
SELECT min(at) FROM t WHERE at > '-infinity'
SELECT sum(n), avg(n), min(n), max(n) FROM t
SELECT sum(n) FROM t WHERE n <> 'NaN'
SELECT n, count(*) FROM t GROUP BY n ORDER BY n
SELECT sum(id), avg(id), count(id), min(id), max(id) FROM t
SELECT sum(g), avg(g), count(g), count(*) FROM t
SELECT sum(g) FROM t WHERE id IN (3)
SELECT sum(g), count(g), avg(g), max(g) FROM t WHERE g IS NULL
SELECT avg(g) FROM t WHERE id > 100000 AND id < 100001
SELECT count(*) FROM t WHERE false
SELECT avg(g) FROM t WHERE id = 1 OR id = 2
SELECT count(*)::int FROM t
SELECT count(*)::smallint FROM t
SELECT count(*)::float8 FROM t
SELECT count(1), g FROM t GROUP BY g ORDER BY g
SELECT count(1), g FROM t GROUP BY 2 ORDER BY 2
SELECT count(1), t.g FROM t GROUP BY t.g ORDER BY t.g NULLS FIRST
SELECT count(1) AS c, g AS grp FROM t GROUP BY grp ORDER BY grp
!SELECT g FROM t GROUP BY g HAVING count(*) > 1 ORDER BY g
!SELECT g, count(*) FROM t GROUP BY g HAVING count(*) = 2 ORDER BY g
!SELECT g, sum(n) FROM t WHERE n <> 'NaN' GROUP BY g HAVING sum(n) > 3 ORDER BY sum(n)
SELECT count(DISTINCT g) FROM t
SELECT count(DISTINCT g), sum(DISTINCT g) FROM t
SELECT DISTINCT g FROM t ORDER BY g
SELECT DISTINCT g FROM t ORDER BY g DESC LIMIT 2
SELECT DISTINCT ON (g) g, id FROM t ORDER BY g, id DESC
~SELECT DISTINCT g, name IS NULL FROM t
~SELECT id FROM t
~SELECT * FROM t WHERE id IN (1, 3)
~SELECT count(1), id FROM t WHERE id IN (1,3) GROUP BY id
~SELECT * FROM t WHERE id = 1 OR id = 3
~SELECT * FROM t WHERE id = ANY('{1,3}')
~SELECT * FROM t WHERE id = ANY(ARRAY[1,3,42])
SELECT * FROM t WHERE id = 1
SELECT * FROM t WHERE id = 1 AND id = 3
SELECT * FROM t WHERE id = -1
SELECT * FROM t WHERE id = - 1
SELECT * FROM t WHERE id = '1'
SELECT * FROM t WHERE id = 1::int
SELECT * FROM t WHERE id = '3'::bigint
SELECT * FROM t WHERE id = 1 + 2
SELECT * FROM t WHERE id = 9223372036854775807
SELECT * FROM t WHERE id = -9223372036854775808
SELECT * FROM t WHERE id = 1.0
SELECT * FROM t WHERE id = 1.5
SELECT * FROM t WHERE id = 99999999999999999999
SELECT * FROM t WHERE id = 'x'
SELECT * FROM t WHERE id = NULL
SELECT * FROM t WHERE id IS NULL
~SELECT * FROM t WHERE id % 2 = 1
~SELECT * FROM t WHERE id + 1 = 5
~SELECT * FROM t WHERE NOT id = 1
~SELECT * FROM t WHERE id <> 1
~SELECT * FROM t WHERE id BETWEEN 1 AND 3
~SELECT * FROM t WHERE id > 1 AND id < 12
~SELECT id, id = 1 AS one FROM t
~SELECT CASE WHEN id = 1 THEN 'x' ELSE 'y' END FROM t
SELECT count(*) FILTER (WHERE id = 1) FROM t
SELECT count(*) FILTER (WHERE g > 1), sum(g) FILTER (WHERE id > 2) FROM t
SELECT T.ID FROM T WHERE T.ID = 3
SELECT x.id FROM t x WHERE x.id = 3
SELECT x.id FROM t AS x (id, b) WHERE x.id = 3
SELECT x.b FROM t AS x (b, id) WHERE x.b = 3
SELECT id FROM public.t WHERE public.t.id = 3
SELECT "Key Col", "Select" FROM "Odd Name" WHERE "Key Col" = 2
SELECT "Key Col" FROM "Odd Name" ORDER BY "Select" DESC
SELECT * FROM other.t2 ORDER BY id
SELECT * FROM other.t2 WHERE id = 3
SELECT * FROM v WHERE name = 'one'
SELECT * FROM v WHERE name = '123'
SELECT * FROM v WHERE name = ''
SELECT * FROM v WHERE name = 'é'
SELECT * FROM v WHERE name = E'\x61'
SELECT * FROM v WHERE name = $$two$$
SELECT * FROM v WHERE name = U&'\0061'
~SELECT * FROM v WHERE name IN ('one', 'two', 'nobody')
SELECT x FROM v ORDER BY x
SELECT name FROM v ORDER BY name COLLATE "C"
SELECT name FROM v ORDER BY name
SELECT max(name) FROM v
SELECT * FROM u WHERE key = '11111111-1111-1111-1111-111111111111'
SELECT * FROM u WHERE key = 'F47AC10B58CC4372A5670E02B2C3D479'
SELECT * FROM u WHERE key = '{f47ac10b-58cc-4372-a567-0e02b2c3d479}'
SELECT * FROM u WHERE key = 'nonsense'
SELECT * FROM u ORDER BY key
SELECT * FROM l WHERE region = 'eu'
SELECT * FROM l WHERE region = 'mars'
SELECT * FROM l ORDER BY x
SELECT region, sum(x) FROM l GROUP BY region ORDER BY region COLLATE "C"
SELECT * FROM rg WHERE n >= 0 AND n < 100 ORDER BY n
SELECT * FROM rg WHERE n BETWEEN 50 AND 150 ORDER BY n
SELECT * FROM rg WHERE n > 100 ORDER BY n
SELECT * FROM rg ORDER BY n
SELECT * FROM rg WHERE n = 500
SELECT * FROM nk WHERE id IS NULL
SELECT * FROM nk ORDER BY id NULLS FIRST
SELECT * FROM nk WHERE id IS NOT DISTINCT FROM 1
SELECT * FROM nk WHERE id IS DISTINCT FROM 1 ORDER BY x
SELECT * FROM k ORDER BY id
SELECT count(*) FROM k
SELECT id FROM t ORDER BY id LIMIT 5
SELECT id FROM t ORDER BY id LIMIT 0
SELECT id FROM t ORDER BY id LIMIT 3 OFFSET 3
SELECT id FROM t ORDER BY id LIMIT 3 OFFSET 6
SELECT id FROM t ORDER BY id LIMIT 3 OFFSET 9
SELECT id FROM t ORDER BY id LIMIT 3 OFFSET 12
SELECT id FROM t ORDER BY id LIMIT NULL OFFSET 2
SELECT id FROM t ORDER BY id LIMIT ALL
SELECT id FROM t ORDER BY id OFFSET 2
SELECT id FROM t ORDER BY id LIMIT 9223372036854775807 OFFSET 2
!SELECT id FROM t ORDER BY id LIMIT 1 + 1
SELECT id FROM t ORDER BY id FETCH FIRST 2 ROWS ONLY
!SELECT id FROM t ORDER BY g FETCH FIRST 2 ROWS WITH TIES
SELECT g FROM t ORDER BY g NULLS FIRST LIMIT 3
SELECT id FROM t ORDER BY id LIMIT -1
!SELECT count(*) FROM (SELECT id FROM t LIMIT 3) x
SELECT count(*) FROM (SELECT id FROM t) x
SELECT * FROM (SELECT id, g FROM t) x ORDER BY id
SELECT * FROM (SELECT id, g FROM t WHERE id = 3) x
!SELECT * FROM (SELECT g, count(*) AS c FROM t GROUP BY g) x ORDER BY g
!SELECT * FROM t WHERE id = (SELECT max(id) FROM t)
SELECT * FROM t WHERE id = (SELECT 3)
!SELECT (SELECT count(*) FROM t)
SELECT (SELECT count(*) FROM k)
!SELECT id, (SELECT label FROM k WHERE k.id = t.g) FROM t ORDER BY id
!SELECT id, (SELECT sum(amount) FROM o WHERE o.tid = t.id) FROM t ORDER BY id
!SELECT id FROM t WHERE EXISTS (SELECT 1 FROM o WHERE o.tid = t.id) ORDER BY id
!SELECT id FROM t WHERE id IN (SELECT tid FROM o) ORDER BY id
!SELECT id FROM t WHERE g IN (SELECT tid FROM o) ORDER BY id
SELECT id FROM t WHERE g IN (SELECT id FROM k) ORDER BY id
!SELECT id FROM t WHERE id NOT IN (SELECT tid FROM o) ORDER BY id
WITH x AS (SELECT id FROM t WHERE id = 3) SELECT * FROM x
!WITH x AS (SELECT id, g FROM t) SELECT * FROM x ORDER BY id
!WITH x AS (SELECT count(*) AS c FROM t) SELECT * FROM x
!WITH x AS (SELECT id FROM t WHERE id = 3), y AS (SELECT id FROM t WHERE id = 1) SELECT * FROM x UNION ALL SELECT * FROM y ORDER BY 1
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r
!WITH RECURSIVE r AS (SELECT id FROM t WHERE id = 1 UNION ALL SELECT r.id + 1 FROM r JOIN t ON t.id = r.id WHERE r.id < 5) SELECT * FROM r
!SELECT id FROM t WHERE id = 1 UNION SELECT id FROM t WHERE id = 3 ORDER BY id
!SELECT id FROM t UNION ALL SELECT tid FROM o ORDER BY 1
!SELECT g FROM t UNION SELECT line FROM o ORDER BY 1
!SELECT id FROM t INTERSECT SELECT tid FROM o ORDER BY 1
!SELECT id FROM t EXCEPT SELECT tid FROM o ORDER BY 1
SELECT id FROM t WHERE id = 3 UNION SELECT tid FROM o WHERE tid = 3
SELECT id FROM k UNION SELECT id FROM k ORDER BY 1
!SELECT id, row_number() OVER (ORDER BY id) FROM t ORDER BY id
SELECT id, row_number() OVER (PARTITION BY id ORDER BY g) FROM t ORDER BY id
SELECT tid, line, sum(amount) OVER (PARTITION BY tid) FROM o ORDER BY tid, line
SELECT id, rank() OVER w FROM t WHERE id = 3 WINDOW w AS (ORDER BY g)
SELECT t.id, o.line FROM t JOIN o ON t.id = o.tid ORDER BY t.id, o.line
SELECT t.id, o.line FROM t, o WHERE t.id = o.tid ORDER BY 1, 2
SELECT t.id, o.line FROM t LEFT JOIN o ON o.tid = t.id ORDER BY 1, 2
SELECT t.id, o.tid FROM t RIGHT JOIN o ON o.tid = t.id ORDER BY 2, o.line
SELECT t.id, o.tid FROM t FULL JOIN o ON o.tid = t.id ORDER BY 1, 2, line
!SELECT t.id, o.line FROM t JOIN o ON t.g = o.line ORDER BY 1, 2
!SELECT t.id, o.line FROM t CROSS JOIN o ORDER BY 1, 2
SELECT t.id FROM t LEFT JOIN o ON o.tid = t.id AND t.id = 3 ORDER BY 1
SELECT t.id, o.line FROM t JOIN o ON t.id = o.tid WHERE t.id = 3 ORDER BY 2
SELECT t.id, o.line FROM t JOIN o ON t.id = o.tid WHERE o.tid IN (1, 3) ORDER BY 1, 2
!SELECT t.id, o.line FROM t JOIN o ON true WHERE t.id = 1 AND o.tid = 3 ORDER BY 1, 2
!SELECT t.id, v.x FROM t JOIN v ON v.x = t.id ORDER BY 1
SELECT t.id, k.label FROM t JOIN k ON k.id = t.g ORDER BY t.id
SELECT t.id, k.label FROM t LEFT JOIN k ON k.id = t.g ORDER BY t.id
!SELECT t.id, k.label FROM k LEFT JOIN t ON k.id = t.g ORDER BY t.id, k.id
SELECT k.label, count(*) FROM t JOIN k ON k.id = t.g GROUP BY k.label ORDER BY k.label COLLATE "C"
SELECT tid, sum(amount) FROM o GROUP BY tid ORDER BY sum(amount) DESC, tid LIMIT 3
SELECT tid, sum(amount), avg(amount), string_agg(note, ',' ORDER BY line) FROM o GROUP BY tid ORDER BY tid
!SELECT string_agg(note, ',') FROM o
SELECT string_agg(note, ',' ORDER BY line) FROM o WHERE tid = 3
!SELECT array_agg(id ORDER BY id) FROM t
!SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM t
SELECT bool_and(g > 0), bool_or(g > 4), bit_or(g), every(g > 1) FROM t
SELECT stddev(g), variance(g) FROM t
!SELECT corr(g, id) FROM t
!SELECT g, grouping(g), count(*) FROM t GROUP BY ROLLUP (g) ORDER BY 1, 2
!SELECT a, count(*) FROM t GROUP BY a ORDER BY a
!SELECT j, count(*) FROM t GROUP BY j ORDER BY j
SELECT j -> 'a' FROM t WHERE id = -1
SELECT id, a[1], a[1:2] FROM t ORDER BY id
~SELECT id, unnest(a) FROM t
!SELECT feels, count(*) FROM m GROUP BY feels ORDER BY feels
SELECT * FROM m ORDER BY id
!SELECT id FROM m ORDER BY feels, id
SELECT count(*) FROM m WHERE feels = 'ok'
!SELECT max(feels) FROM m
SELECT 1
SELECT 1, 'x' AS y, NULL
SELECT 1 / 0
SELECT id / 0 FROM t
SELECT nothing FROM t
SELECT id FROM nowhere
SELEC 1
SELECT
VALUES (1, 'a'), (2, 'b')
TABLE k
~TABLE t
SELECT generate_series(1, 3)
SELECT * FROM generate_series(1, 3) g, t WHERE t.id = 3
SELECT count(*) FROM t, generate_series(1, 3)
SELECT current_database() IS NOT NULL
SELECT now() = now()
SELECT count(*) FROM t WHERE now() IS NOT NULL
SELECT tableoid::regclass::text FROM t WHERE id = 3
SELECT count(*) FROM pg_class WHERE relname = 't'
SELECT relname FROM pg_class WHERE relname = 't'
~SELECT id FROM t FOR UPDATE
~SELECT id FROM t WHERE id = 3 FOR UPDATE
!WITH x AS (SELECT id FROM t FOR UPDATE) SELECT count(*) FROM x
SELECT t FROM t WHERE id = 3
SELECT t.* FROM t WHERE id = 3
SELECT (t).id FROM t WHERE t.id = 3
SELECT row(id, g) FROM t ORDER BY id
SELECT coalesce(sum(g), 0) FROM t WHERE false
!SELECT sum(g) + count(*) FROM t
!SELECT max(g) - min(g) FROM t
SELECT round(avg(g), 2) FROM t
SELECT 1 FROM t GROUP BY g
SELECT count(*) AS "Count", 'x' FROM t
SELECT id FROM t TABLESAMPLE SYSTEM (100) WHERE id = 3
!SELECT LATERAL_x.s FROM t, LATERAL (SELECT sum(amount) AS s FROM o WHERE o.tid = t.id) LATERAL_x ORDER BY t.id
SELECT id FROM t WHERE id = 3 ;
SELECT /* a comment */ id -- and another
SELECT id::text COLLATE "C" FROM t ORDER BY 1
SELECT name FROM t WHERE name LIKE 'O%'
SELECT DISTINCT name FROM t ORDER BY name
SELECT id FROM t WHERE (id, g) IN ((1, 2), (3, 3)) ORDER BY id
SELECT id FROM t WHERE (id, g) = (1, 2)
SELECT 'a' AS x FROM t WHERE id IN (1, 3)
SELECT id FROM t WHERE id IN (SELECT unnest('{1,3}'::bigint[])) ORDER BY id
SELECT id FROM t WHERE id IN (VALUES (1), (3)) ORDER BY id
SELECT id FROM t JOIN (VALUES (1, 'a'), (3, 'b')) x (i, s) ON x.i = t.id ORDER BY id
SELECT sum(x.id) FROM t JOIN k x ON x.id = t.g
SHOW server_encoding
SHOW search_path
"""

WRITES = r"""
INSERT INTO t (id, g) VALUES (100, 1)
INSERT INTO t (id, g) VALUES (100, 1), (101, 2), (103, 3)
INSERT INTO t (g, id) VALUES (1, 100), (2, 101) RETURNING id, g
INSERT INTO t VALUES (100), (101), (103), (104) RETURNING *
INSERT INTO t (id) VALUES (100), (1)
INSERT INTO t (id) VALUES (101), (3) RETURNING id
INSERT INTO t (id, g) VALUES (1, 9), (3, 9), (100, 9) ON CONFLICT DO NOTHING
INSERT INTO t (id, g) VALUES (1, 9), (3, 9), (100, 9) ON CONFLICT (id) DO UPDATE SET g = excluded.g
~INSERT INTO t (id, g) VALUES (1, 9), (3, 9), (100, 9) ON CONFLICT (id) DO UPDATE SET g = t.g + excluded.g RETURNING id, g
INSERT INTO t (id, g) VALUES (1, 9), (1, 10) ON CONFLICT (id) DO UPDATE SET g = excluded.g
INSERT INTO t (id) VALUES (100 + 1), (-(50)), ('77'), (5::smallint)
!INSERT INTO t (id) VALUES (1.5)
INSERT INTO t (id) VALUES (NULL)
INSERT INTO t (id) VALUES ('x')
INSERT INTO t (id) VALUES (99999999999999999999)
INSERT INTO t (id, g) VALUES (100)
INSERT INTO t (id) VALUES (100, 1)
INSERT INTO t (id, nothing) VALUES (100, 1)
INSERT INTO t (g) VALUES (1)
INSERT INTO t DEFAULT VALUES
INSERT INTO nk VALUES (NULL, 10), (7, 11), (NULL, 12)
INSERT INTO nk (x) VALUES (10)
INSERT INTO nk DEFAULT VALUES
INSERT INTO d (id, word) VALUES (10, DEFAULT), (11, 'x'), (13, DEFAULT)
INSERT INTO d (id, word) VALUES (10, DEFAULT), (13, DEFAULT) RETURNING *
INSERT INTO d VALUES (DEFAULT, '2021-01-01')
INSERT INTO t SELECT g + 200 FROM t WHERE g IS NOT NULL AND id = 1
INSERT INTO t (id, g) SELECT n, n * 2 FROM generate_series(200, 220) n
INSERT INTO t (id) SELECT generate_series(200, 230)
INSERT INTO t (id, name) SELECT n, 'row ' || n FROM generate_series(1000, 2500) n
~INSERT INTO t (id, g) SELECT n, 1 FROM generate_series(200, 205) n RETURNING id, g
INSERT INTO t (id, g) SELECT id + 1000, g FROM t WHERE id BETWEEN 0 AND 100
INSERT INTO o (tid, line) SELECT id, 50 FROM t
INSERT INTO t (id) SELECT n FROM generate_series(199, 1, -1) n
INSERT INTO t (id) SELECT 300 WHERE false
INSERT INTO t (id) SELECT 300 WHERE false RETURNING id
INSERT INTO t (id, g) SELECT 300, 1 UNION ALL SELECT 301, 2
INSERT INTO t (id, name) SELECT 301, NULL
INSERT INTO t (id, at) SELECT 301, '2020-01-01'
!INSERT INTO t (id) VALUES ((SELECT 301))
!INSERT INTO t (id) VALUES ((SELECT max(id) FROM t WHERE id < 50) + 1000)
!WITH x AS (SELECT 301 AS id) INSERT INTO t (id) SELECT id FROM x
!WITH x AS (DELETE FROM t WHERE id = 3 RETURNING *) INSERT INTO nk SELECT id, g FROM x
INSERT INTO k VALUES (100, 'hundred')
INSERT INTO k VALUES (100, 'hundred'), (101, 'more') RETURNING *
INSERT INTO k VALUES (1, 'again')
INSERT INTO k VALUES (1, 'again') ON CONFLICT (id) DO UPDATE SET label = excluded.label RETURNING label
INSERT INTO k SELECT n, 'n' || n FROM generate_series(50, 60) n
!INSERT INTO k SELECT id, name FROM t WHERE id IN (42, 11)
!INSERT INTO k VALUES (200, random()::text)
!INSERT INTO k VALUES (200, now()::text)
UPDATE k SET label = upper(label)
UPDATE k SET label = upper(label) WHERE id < 3 RETURNING id, label
DELETE FROM k WHERE id > 2
DELETE FROM k
INSERT INTO v VALUES ('new', 1), ('newer', 2), ('', 9) ON CONFLICT DO NOTHING
INSERT INTO v VALUES (123456, 1)
INSERT INTO u VALUES ('22222222-2222-2222-2222-222222222222', 1), ('33333333-3333-3333-3333-333333333333', 2)
INSERT INTO u VALUES ('bad', 1)
INSERT INTO "Odd Name" VALUES (7, 'seven'), (8, 'eight')
INSERT INTO "Odd Name" ("Select", "Key Col") VALUES ('seven', 7), ('eight', 8) RETURNING "Select"
INSERT INTO l VALUES ('us', 1), ('de', 2)
!INSERT INTO l VALUES ('mars', 1)
!INSERT INTO l VALUES ('us', 1), ('mars', 1)
INSERT INTO rg VALUES (150, 1), (50, 2), (1000, 3), (-1, 4)
INSERT INTO other.t2 VALUES (7, 1), (8, 2)
INSERT INTO m VALUES (7, 'sad'), (8, 'happy')
INSERT INTO m VALUES (7, 'sad'), (8, 'grumpy')
INSERT INTO m SELECT id + 100, feels FROM m
UPDATE t SET g = 9 WHERE id = 3
UPDATE t SET g = 9 WHERE id = 3 RETURNING *
UPDATE t SET g = 9
UPDATE t SET g = g + 1 WHERE g > 1
~UPDATE t SET g = g + 1 WHERE g > 1 RETURNING id, g
UPDATE t SET g = 9 WHERE id IN (1, 3, 42)
UPDATE t SET g = 9 WHERE false
UPDATE t SET name = 'x' WHERE id = 1 AND id = 3
UPDATE t SET id = 3 WHERE id = 3
UPDATE t SET id = 3, g = 8 WHERE id = 3
!UPDATE t SET id = 300 WHERE id = 3
!UPDATE t SET id = id WHERE id = 3
!UPDATE t SET id = id + 1000 WHERE id > 0 AND id < 100
UPDATE t SET g = (SELECT max(id) FROM k)
!UPDATE t SET g = (SELECT count(*) FROM t)
UPDATE t SET g = o.line FROM o WHERE o.tid = t.id AND o.line = 1
UPDATE t SET name = k.label FROM k WHERE k.id = t.g
!UPDATE t SET g = 1 FROM o WHERE o.line = t.g
UPDATE t SET g = 1 / (g - 2)
UPDATE t SET name = random()::text WHERE id = -77
DELETE FROM t WHERE id = 3
DELETE FROM t WHERE id IN (1, 3)
DELETE FROM t
DELETE FROM t WHERE g = 2
~DELETE FROM t WHERE g = 2 RETURNING id
DELETE FROM t USING o WHERE o.tid = t.id
DELETE FROM t WHERE id IN (SELECT tid FROM o)
DELETE FROM t WHERE g IN (SELECT id FROM k)
!DELETE FROM t WHERE g = (SELECT max(g) FROM t)
WITH gone AS (DELETE FROM t WHERE id = 3 RETURNING id) SELECT * FROM gone
!WITH gone AS (DELETE FROM t RETURNING id) SELECT count(*) FROM gone
!MERGE INTO t USING k ON t.id = k.id WHEN MATCHED THEN UPDATE SET g = 77
MERGE INTO k USING (VALUES (1, 'm'), (90, 'n')) x (i, s) ON k.id = x.i WHEN MATCHED THEN UPDATE SET label = s WHEN NOT MATCHED THEN INSERT VALUES (i, s)
TRUNCATE t
TRUNCATE t, o
BEGIN ;; INSERT INTO t (id) VALUES (100) ;; INSERT INTO t (id) VALUES (101), (103) ;; SELECT count(*) FROM t ;; COMMIT
BEGIN ;; INSERT INTO t (id) VALUES (100) ;; INSERT INTO t (id) VALUES (101), (103) ;; ROLLBACK
BEGIN ;; SELECT count(*) FROM t WHERE id = 3 ;; SELECT count(*) FROM t ;; END
BEGIN ;; INSERT INTO t (id) VALUES (1) ;; SELECT 1 ;; COMMIT
BEGIN ;; UPDATE t SET g = 1 ;; SELECT 1 / 0 ;; UPDATE t SET g = 2 ;; ROLLBACK
BEGIN ;; UPDATE t SET g = 5 WHERE id = 3 ;; SELECT 1 / 0 FROM t ;; COMMIT ;; SELECT count(*) FROM t
BEGIN ;; SAVEPOINT a ;; UPDATE t SET g = 5 WHERE id = 3 ;; UPDATE t SET g = 6 WHERE id = 1 ;; ROLLBACK TO a ;; COMMIT
BEGIN ;; UPDATE t SET g = 5 WHERE id = 3 ;; SAVEPOINT a ;; UPDATE t SET g = 6 WHERE id = 1 ;; ROLLBACK TO SAVEPOINT a ;; COMMIT
BEGIN ;; UPDATE t SET g = 5 WHERE id = 3 ;; SAVEPOINT a ;; UPDATE t SET g = 6 ;; SELECT 1/0 FROM t ;; ROLLBACK TO a ;; UPDATE t SET name = 'after' WHERE id = 1 ;; COMMIT
BEGIN ;; SAVEPOINT a ;; SAVEPOINT b ;; UPDATE t SET g = 5 ;; RELEASE b ;; ROLLBACK TO a ;; UPDATE t SET g = 6 WHERE id = 3 ;; RELEASE a ;; COMMIT
BEGIN ;; SAVEPOINT a ;; RELEASE a ;; ROLLBACK TO a ;; ROLLBACK
BEGIN ;; RELEASE nothing ;; ROLLBACK
BEGIN ;; ROLLBACK TO nothing ;; COMMIT
BEGIN ;; SAVEPOINT a ;; RELEASE a ;; SAVEPOINT a ;; UPDATE t SET g = 5 ;; ROLLBACK TO a ;; ROLLBACK TO a ;; UPDATE t SET g = 6 ;; COMMIT
SAVEPOINT a
ROLLBACK TO a
RELEASE a
COMMIT
ROLLBACK
BEGIN ;; BEGIN ;; COMMIT
BEGIN ;; UPDATE t SET g = 1 ;; COMMIT AND CHAIN ;; UPDATE t SET g = 2 ;; ROLLBACK AND CHAIN ;; UPDATE t SET name = 'c' ;; COMMIT
BEGIN ISOLATION LEVEL SERIALIZABLE ;; SELECT count(*) FROM t ;; SHOW transaction_isolation ;; COMMIT AND CHAIN ;; SHOW transaction_isolation ;; ROLLBACK
BEGIN ISOLATION LEVEL REPEATABLE READ ;; SELECT 1 ;; ROLLBACK AND CHAIN ;; SHOW transaction_isolation ;; COMMIT
BEGIN READ ONLY ;; SELECT count(*) FROM t ;; UPDATE t SET g = 1 ;; ROLLBACK
BEGIN READ ONLY ;; INSERT INTO t (id) VALUES (300), (301), (303) ;; COMMIT
START TRANSACTION READ ONLY ;; UPDATE t SET g = 1 WHERE id = 3 ;; COMMIT
BEGIN ;; SET TRANSACTION READ ONLY ;; UPDATE t SET g = 1 WHERE id = 3 ;; COMMIT
BEGIN ;; SET TRANSACTION READ ONLY ;; UPDATE t SET g = 1 WHERE id = 1 ;; COMMIT
BEGIN ;; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE ;; SELECT id FROM t WHERE id = 3 ;; SELECT id FROM t WHERE id = 1 ;; SHOW transaction_isolation ;; COMMIT
COMMIT AND CHAIN
BEGIN ;; SET LOCAL extra_float_digits = 0 ;; SELECT id, 0.1::float8 + 0.2 FROM t ORDER BY id ;; COMMIT ;; SELECT 0.1::float8 + 0.2
BEGIN ;; SELECT id FROM t WHERE id = 3 ;; SET LOCAL bytea_output = 'escape' ;; SELECT id, '\x61'::bytea FROM t ORDER BY id ;; COMMIT ;; SHOW bytea_output
BEGIN ;; SET bytea_output = 'escape' ;; SELECT id, '\x61'::bytea FROM t ORDER BY id ;; ROLLBACK ;; SELECT id, '\x61'::bytea FROM t ORDER BY id
BEGIN ;; SET bytea_output = 'escape' ;; COMMIT ;; SELECT id, '\x61'::bytea FROM t ORDER BY id ;; RESET bytea_output ;; SELECT id, '\x61'::bytea FROM t ORDER BY id
BEGIN ;; SAVEPOINT a ;; SET bytea_output = 'escape' ;; SELECT id FROM t WHERE id = 3 ;; SELECT id, '\x61'::bytea FROM t ORDER BY id ;; ROLLBACK TO a ;; SELECT id, '\x61'::bytea FROM t ORDER BY id ;; COMMIT ;; SHOW bytea_output
SET bytea_output = 'escape' ;; SELECT id, '\x61'::bytea FROM t ORDER BY id ;; SELECT '\x61'::bytea FROM t WHERE id = 3 ;; SELECT '\x61'::bytea FROM t WHERE id = 1 ;; RESET ALL ;; SELECT '\x61'::bytea FROM t WHERE id = 1
SET bytea_output = 'nonsense' ;; SELECT 1
SET search_path = other ;; SELECT * FROM t2 ORDER BY id ;; SELECT * FROM t2 WHERE id = 3 ;; INSERT INTO t2 VALUES (9, 9), (10, 10) ;; SELECT id FROM t ;; RESET search_path ;; SELECT count(*) FROM t
CREATE TABLE fresh (id bigint, x int) ;; INSERT INTO fresh VALUES (1, 1), (3, 3) ;; SELECT * FROM fresh ORDER BY id ;; DROP TABLE fresh ;; SELECT * FROM fresh
BEGIN ;; CREATE TABLE fresh (id bigint, x int) ;; INSERT INTO fresh (id, x) VALUES (1, 1), (3, 3) ;; SELECT count(*) FROM fresh ;; ROLLBACK ;; SELECT * FROM fresh
ALTER TABLE t ADD COLUMN extra int DEFAULT 5 ;; SELECT id, extra FROM t ORDER BY id ;; SELECT * FROM t WHERE id = 3 ;; INSERT INTO t VALUES (300), (301) ;; ALTER TABLE t DROP COLUMN extra ;; SELECT * FROM t ORDER BY id
BEGIN ;; ALTER TABLE t ADD COLUMN extra int DEFAULT 5 ;; SELECT id, extra FROM t ORDER BY id ;; ROLLBACK
CREATE INDEX fresh_index ON t (g) ;; DROP INDEX fresh_index
CREATE TABLE t (id int)
CREATE VIEW view_k AS SELECT * FROM k ;; SELECT * FROM view_k ORDER BY id ;; DROP VIEW view_k
!CREATE VIEW view_t AS SELECT * FROM t ;; SELECT count(*) FROM view_t ;; DROP VIEW view_t
CREATE TABLE made AS SELECT * FROM k ;; SELECT * FROM made ORDER BY id ;; DROP TABLE made
!CREATE TABLE made AS SELECT * FROM t
VACUUM k
ANALYZE t
BEGIN ;; VACUUM k ;; ROLLBACK
!DO $$ BEGIN NULL; END $$
LOCK TABLE t
BEGIN ;; LOCK TABLE t ;; COMMIT
!LISTEN x
NOTIFY x
!PREPARE p AS SELECT 1
!EXECUTE p
DEALLOCATE ALL
!CREATE TEMP TABLE tt (x int)
DISCARD ALL
BEGIN ;; UPDATE t SET g = 1 ;; DEALLOCATE ALL ;; COMMIT
!DECLARE c CURSOR FOR SELECT id FROM t
!BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id ;; FETCH 2 FROM c ;; ROLLBACK
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM t WHERE id = 3 ;; FETCH 2 FROM c ;; CLOSE c ;; COMMIT
!SELECT pg_advisory_lock(1)
SELECT set_config('bytea_output', 'escape', false) ;; SELECT id, '\x61'::bytea FROM t ORDER BY id
BEGIN ;; SELECT set_config('bytea_output', 'escape', true) ;; SELECT id, '\x61'::bytea FROM t ORDER BY id ;; COMMIT
!EXPLAIN ANALYZE DELETE FROM t
BEGIN ;; INSERT INTO k VALUES (300, 'x') ;; INSERT INTO t (id) VALUES (3) ;; COMMIT
BEGIN ;; SELECT id FROM t WHERE id = 3 ;; INSERT INTO k VALUES (300, 'x') ;; COMMIT
BEGIN ;; INSERT INTO k VALUES (300, 'x') ;; SELECT count(*) FROM k ;; SELECT count(*) FROM t JOIN k ON k.id = t.g ;; COMMIT
SET CONSTRAINTS ALL DEFERRED
BEGIN ;; SET CONSTRAINTS ALL DEFERRED ;; UPDATE t SET g = 1 ;; COMMIT
BEGIN ;; SELECT txid_current() IS NOT NULL ;; COMMIT
SELECT nextval('nothing')
SET pgmurmur.shard TO 0 ;; SELECT 1 ;; RESET pgmurmur.shard
"""

SEVERAL = r"""
SELECT 1; SELECT 2
SELECT id FROM t WHERE id = 3; SELECT id FROM t WHERE id = 1
SELECT count(*) FROM t; SELECT count(*) FROM k
INSERT INTO t (id) VALUES (100); INSERT INTO t (id) VALUES (101), (103)
INSERT INTO t (id) VALUES (100), (101), (103); SELECT 1 / 0
INSERT INTO t (id) VALUES (100); SELECT 1 / 0; INSERT INTO t (id) VALUES (101)
BEGIN; INSERT INTO t (id) VALUES (100), (101), (103); COMMIT
BEGIN; INSERT INTO t (id) VALUES (100), (101), (103); ROLLBACK
INSERT INTO t (id) VALUES (100), (101); BEGIN; INSERT INTO t (id) VALUES (103); COMMIT; SELECT count(*) FROM t
INSERT INTO t (id) VALUES (100), (101); ROLLBACK; SELECT count(*) FROM t
INSERT INTO t (id) VALUES (100), (101); COMMIT; SELECT 1/0
BEGIN; UPDATE t SET g = 1; SELECT 1/0; COMMIT
BEGIN; UPDATE t SET g = 1 WHERE id = 3; SAVEPOINT a; UPDATE t SET g = 2; ROLLBACK TO a; COMMIT; SELECT count(*) FROM t
;
; ;
SELECT 1;
SET bytea_output = 'escape'; SELECT id, '\x61'::bytea FROM t ORDER BY id; RESET bytea_output
INSERT INTO k VALUES (70, 'x'); UPDATE t SET g = 1 WHERE id = 3
SELECT 1; SELEC 2
UPDATE t SET g = 1; VACUUM k
SELECT 'a;b'; SELECT id FROM t WHERE id = 3 AND name IS NULL
"""

DROP = (
    "DROP TABLE IF EXISTS fresh",
    "DROP TABLE IF EXISTS made",
    "DROP VIEW IF EXISTS view_k",
    "DROP VIEW IF EXISTS view_t",
    "ALTER TABLE t DROP COLUMN IF EXISTS extra",
    "DROP INDEX IF EXISTS fresh_index",
)

# SQL, parameters as text, declared types
PARAMETERS: list[tuple[str, tuple[bytes | None, ...], tuple[int, ...]]] = [
    ("SELECT * FROM t WHERE id = $1", (b"3",), ()),
    ("SELECT * FROM t WHERE id = $1", (b"-1",), (20,)),
    ("SELECT * FROM t WHERE id = $1", (b"3",), (23,)),
    ("SELECT * FROM t WHERE id = $1::int", (b"3",), ()),
    ("SELECT * FROM t WHERE id = $1", (None,), ()),
    ("SELECT * FROM t WHERE id = $1", (b"x",), ()),
    ("SELECT * FROM t WHERE id = $1", (b" 3 ",), ()),
    ("SELECT * FROM t WHERE id = $1", (b"3.0",), (1700,)),
    ("SELECT * FROM t WHERE id = $1 OR id = $2 ORDER BY id", (b"3", b"1"), ()),
    ("SELECT * FROM t WHERE id IN ($1, $2, $3) ORDER BY id", (b"3", b"1", None), ()),
    ("SELECT * FROM t WHERE id = ANY($1) ORDER BY id", (b"{1,3,42}",), ()),
    ("SELECT * FROM t WHERE id = ANY($1) ORDER BY id", (b"{}",), ()),
    ("SELECT * FROM t WHERE id = ANY($1::int[]) ORDER BY id", (b"{3,NULL}",), ()),
    ("SELECT * FROM v WHERE name = $1", (b"one",), ()),
    ("SELECT * FROM v WHERE name = $1", (b"123",), (25,)),
    ("SELECT * FROM u WHERE key = $1", (b"F47AC10B-58CC-4372-A567-0E02B2C3D479",), ()),
    ("SELECT id FROM t WHERE id = $1 ORDER BY id LIMIT $2", (b"3", b"1"), ()),
    ("SELECT id FROM t ORDER BY id LIMIT $1 OFFSET $2", (b"3", b"2"), ()),
    ("SELECT id FROM t ORDER BY id LIMIT $1", (None,), ()),
    ("SELECT count(*) FROM t WHERE g > $1", (b"1",), ()),
    ("SELECT id, $1::text FROM t ORDER BY id", (b"x",), ()),
    ("INSERT INTO t (id, g) VALUES ($1, $2), ($3, $4)", (b"100", b"1", b"101", b"2"), ()),
    ("INSERT INTO t (id, g) VALUES ($1, $3), ($2, $3) RETURNING id", (b"100", b"103", b"2"), ()),
    ("INSERT INTO t (id, name) VALUES ($1, $2)", (b"100", None), ()),
    ("INSERT INTO t (id, g) SELECT n, $1 FROM generate_series(200, $2::int) n", (b"7", b"210"), ()),
    ("UPDATE t SET g = $1 WHERE id = $2", (b"5", b"3"), ()),
    ("UPDATE t SET g = $1 WHERE id IN ($2, $3)", (b"5", b"3", b"1"), ()),
    ("DELETE FROM t WHERE id = $1", (b"3",), ()),
    ("UPDATE k SET label = $1 WHERE id = $2", (b"x", b"1"), ()),
    ("INSERT INTO k VALUES ($1, $2)", (b"77", b"x"), ()),
]
