"""Scripts about keys: statements divided by `;;`; `!` before one that is refused. See test_exactness_keys.py."""

from __future__ import annotations

TABLES = """
CREATE TABLE t (id bigint PRIMARY KEY, g int, n numeric, f float8, word text);
CREATE TABLE v (name varchar, x int);
CREATE TABLE s (name text, x int);
CREATE TABLE short (name varchar(3), x int);
CREATE TABLE padded (name char(5), x int);
CREATE TABLE cut (name name, x int);
CREATE TABLE small (id int, x int);
CREATE TABLE smaller (id smallint, x int);
CREATE TABLE k (id bigint, x int);
CREATE TABLE above (id bigint, x int);
CREATE TABLE below () INHERITS (above);
CREATE TABLE parted (id bigint, x int) PARTITION BY HASH (id);
CREATE TABLE part PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE SCHEMA other;
CREATE TABLE twice (id bigint, x int, n numeric);
CREATE TABLE other.twice (x int, n numeric, id bigint);
CREATE TABLE own (id bigint, x int);
CREATE TABLE other.own (id bigint, x int);
CREATE FUNCTION number() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM t';
CREATE VIEW counted AS SELECT k.*, number() FROM k;
CREATE SCHEMA east;
CREATE SCHEMA west;
CREATE TABLE east.c (id bigint);
CREATE TABLE west.c (id bigint);
CREATE TABLE west.d (id bigint);
CREATE TABLE ruled (id bigint, x int);
CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO below VALUES (new.x, new.id);
"""
NUMBERED = ("t", "below", "part", "ruled", "twice", "own", "small", "smaller")
NAMED = ("v", "s", "short", "padded", "cut")
SHARDED = dict.fromkeys(NUMBERED, "bigint") | dict.fromkeys(NAMED, "varchar")

TWICE = """
INSERT INTO twice VALUES (3, 1, 1), (4, 1, 1), (5, 2, 2), (6, 3, 3) ;; SELECT * FROM twice WHERE id = 5
SET search_path = other ;; INSERT INTO twice VALUES (1, 1, 3), (1, 1, 4), (2, 2, 5), (3, 3, 6) ;; SELECT * FROM twice ORDER BY id
SET search_path = other ;; SELECT * FROM twice WHERE id = 3 ;; SELECT * FROM twice WHERE id = 4 ;; SELECT * FROM twice WHERE id = 5
SET search_path = other ;; INSERT INTO twice VALUES (9, 9, 7) ;; INSERT INTO twice VALUES (9, 9, 8) ;; INSERT INTO twice VALUES (9, 9, 9)
SELECT id FROM other.twice WHERE id = 7 ;; SELECT id FROM other.twice WHERE id = 8 ;; SELECT id FROM other.twice WHERE id = 9
SET search_path = other ;; INSERT INTO twice SELECT 1, 1, i FROM generate_series(20, 29) i ;; SELECT id FROM twice WHERE id = 23
SET search_path = public, other ;; INSERT INTO twice VALUES (30, 1, 2) ;; SELECT * FROM twice WHERE id = 30 ;; SELECT * FROM twice WHERE id = 2
SELECT set_config('search_path', 'other', false) ;; INSERT INTO twice VALUES (1, 1, 33), (1, 1, 34) ;; SELECT id FROM twice WHERE id = 33
!BEGIN ;; SET LOCAL search_path = other ;; INSERT INTO twice VALUES (1, 1, 40), (1, 1, 41)
!BEGIN ;; SET search_path = other ;; SELECT count(*) FROM twice ;; SELECT 1 FROM twice WHERE id = 3 ;; ROLLBACK
BEGIN ;; SET LOCAL search_path = other ;; INSERT INTO public.t VALUES (99) ;; ROLLBACK ;; INSERT INTO twice VALUES (44, 1, 2) ;; SELECT id FROM twice WHERE id = 44
SET search_path = other ;; BEGIN ;; INSERT INTO twice VALUES (1, 1, 51), (1, 1, 52) ;; SELECT x FROM twice WHERE id = 51 ;; SELECT x FROM twice WHERE id = 52 ;; COMMIT
RESET search_path ;; SELECT id FROM twice ORDER BY id ;; SELECT id FROM other.twice ORDER BY id
INSERT INTO own VALUES (1, 1), (2, 2) ;; SELECT count(*) FROM own ;; INSERT INTO other.own VALUES (3, 3), (4, 4), (5, 5) ;; SELECT count(*) FROM other.own
SET search_path = other ;; SELECT count(*) FROM own ;; SELECT * FROM own WHERE id = 5 ;; SELECT * FROM public.own ORDER BY id ;; SET search_path = public ;; SELECT count(*) FROM own
"""

UNREADABLE = """
SELECT * FROM {} WHERE id = 'x'
SELECT * FROM {} WHERE id = ''
SELECT * FROM {} WHERE id = '70000'
SELECT * FROM {} WHERE id > '99999999999'
SELECT * FROM {} WHERE id = '99999999999999999999'
SELECT * FROM {} WHERE id IN ('70000', 1, 99999999999)
SELECT * FROM {} WHERE id BETWEEN '1' AND '1x'
INSERT INTO {} VALUES ('x', 1)
INSERT INTO {} VALUES ('70000', 1)
INSERT INTO {} VALUES ('99999999999999999999', 1)
UPDATE {} SET x = 1 WHERE id = '1.0'
"""

EAST_AND_WEST = """
INSERT INTO east.c VALUES (1) ;; INSERT INTO west.c VALUES (2), (3) ;; INSERT INTO west.d VALUES (4)
SET search_path = east ;; SELECT * FROM c ;; INSERT INTO c VALUES (5) ;; SELECT count(*) FROM east.c
SET search_path = west ;; SELECT count(*) FROM c ;; INSERT INTO c VALUES (6) ;; SELECT count(*) FROM west.c ;; SELECT * FROM d
SELECT set_config('search_path', 'west, public', false) ;; SELECT count(*) FROM c ;; DELETE FROM c WHERE id = 6 ;; SELECT * FROM d
SET search_path = west ;; BEGIN ;; SELECT count(*) FROM c ;; INSERT INTO d VALUES (7) ;; COMMIT ;; SELECT count(*) FROM west.d
!BEGIN ;; SET LOCAL search_path = west ;; SELECT count(*) FROM d
RESET search_path ;; SELECT count(*) FROM west.d ;; SELECT * FROM d
"""

HEIRS = """
INSERT INTO below SELECT i, i FROM generate_series(1, 9) i ;; INSERT INTO part SELECT i, i FROM generate_series(1, 9) i
SELECT * FROM below WHERE id = 3 ;; SELECT * FROM part ORDER BY id
!SELECT * FROM counted
!INSERT INTO k VALUES (1, number())
!INSERT INTO t (id, n) VALUES (101, number()), (102, 1), (103, 2), (104, 3)
!CREATE TABLE fresh AS SELECT number()
!SELECT number() INTO fresh
!SELECT ndoc FROM ts_stat('SELECT to_tsvector(word) FROM t')
!SELECT query_to_xml('SELECT count(*) FROM t', true, false, '')
!SELECT * FROM above
!SELECT count(*) FROM above WHERE id = 3
!SELECT count(*) FROM parted WHERE id = 3
!UPDATE above SET x = 0
!INSERT INTO parted VALUES (10, 10)
!INSERT INTO ruled VALUES (3, 4)
!WITH x AS (INSERT INTO ruled VALUES (3, 4) RETURNING *) SELECT * FROM x
!BEGIN ;; DELETE FROM ruled ;; ROLLBACK
SELECT * FROM below ORDER BY id ;; SELECT count(*) FROM ruled
"""

MOVES = """
!WITH x AS (UPDATE t SET id = 300 WHERE id = 3 RETURNING *) SELECT * FROM x
!WITH x AS (UPDATE t SET (g, id) = (1, 301) WHERE id = 4 RETURNING *) UPDATE t SET g = 1 WHERE id = 4
!WITH x AS (UPDATE t SET id = 302 WHERE id = 4) DELETE FROM t WHERE id = 4
!WITH x AS (MERGE INTO t USING k ON t.id = k.id WHEN MATCHED THEN UPDATE SET id = 303 RETURNING t.id) SELECT * FROM x
WITH x AS (UPDATE t SET g = 300 WHERE id = 3 RETURNING *) SELECT * FROM x
WITH x AS (UPDATE t SET g = 300 WHERE id = 4 RETURNING *) UPDATE t SET g = 301 WHERE id = 4 RETURNING g
"""
