"""Conversations of raw protocol messages, to be held with PostgreSQL directly and through a node alike."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from fakes.conversation import Message
from fakes.fake_client import FakeClient

from node.wire import messages as m

# What stands for a message that does not come.
ENDED, SILENCE = "the connection has ended", "silence"


@dataclass(frozen=True)
class Say:
    """Bytes to send, then the letters to wait for, one after the other: Z three times is three ReadyForQuery."""

    data: bytes
    until: str = "Z"


def q(sql: str, ready: int = 1) -> Say:
    return Say(m.query(sql), "Z" * ready)


def batch(*parts: bytes, until: str = "Z") -> Say:
    return Say(b"".join(parts), until)


def p(name: str, sql: str, *types: int) -> bytes:
    return m.parse(name.encode(), sql.encode(), types)


def b(statement: str = "", *values: bytes | None, portal: str = "", formats: Sequence[int] = ()) -> bytes:
    return m.bind(portal.encode(), statement.encode(), (), values, formats)


def close_portal(name: str) -> bytes:
    return m.message(b"C", b"P" + name.encode() + b"\0")


def c(name: str) -> bytes:
    return m.close_statement(name.encode())


D, E, S, H = m.describe_portal(b""), m.execute(), m.SYNC, m.FLUSH


def ds(name: str) -> bytes:
    return m.describe_statement(name.encode())


def function_call(oid: int, *values: bytes) -> bytes:
    body = struct.pack("!IHHH", oid, 1, 0, len(values))
    body += b"".join(struct.pack("!i", len(value)) + value for value in values) + struct.pack("!H", 0)
    return m.message(b"F", body)


INT4PL_OID = 177
COPY_DONE = m.COPY_DONE
SETUP = "DROP TABLE IF EXISTS t; CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'one'), (2, 'two')"

CASES: dict[str, list[Say]] = {
    "simple queries": [q("SELECT 1"), q("SELECT * FROM t ORDER BY a"), q("SELECT 1/0"), q(""), q(";;"), q("SELECT 1; SELECT 2")],
    "an error inside a query of several": [q("SELECT 1; SELECT 1/0; SELECT 2"), q("SELECT 3")],
    "pipelined queries": [Say(m.query("SELECT 1") + m.query("SELECT 1/0") + m.query("SELECT 2"), "ZZZ")],
    "an extended query": [batch(p("", "SELECT $1::int + 1"), b("", b"41"), D, E, S)],
    "parse first, bind later": [batch(p("", "SELECT $1::text"), ds(""), S), batch(b("", b"x"), D, E, S), batch(b("", b"y"), E, S)],
    "a query forgets the unnamed statement": [batch(p("", "SELECT 1"), S), q("SELECT 2"), batch(b(), E, S), q("SELECT 3")],
    "the unnamed statement over a transaction": [
        batch(p("", "SELECT a FROM t ORDER BY a"), S), batch(b(), E, S), batch(b(), D, E, S), q("BEGIN"),
        batch(p("", "SELECT 5"), b(), E, S), q("COMMIT"),
    ],
    "named statements": [
        batch(p("s", "SELECT b FROM t WHERE a = $1"), ds("s"), S), batch(b("s", b"1"), D, E, S), batch(b("s", b"2"), E, S),
        batch(c("s"), S), batch(b("s", b"1"), E, S), batch(p("s", "SELECT 7"), b("s"), E, S),
    ],
    "two names of one text": [
        batch(p("s1", "SELECT 1"), S), batch(p("s2", "SELECT 1"), S), batch(c("s1"), S), batch(b("s2"), E, S),
        batch(b("s1"), E, S), batch(p("s1", "SELECT 1"), b("s1"), E, c("s2"), S),
    ],
    "close of what does not exist": [batch(c("nothing"), close_portal("nothing"), c(""), S)],
    "close and parse anew in one batch": [
        batch(p("s", "SELECT 1"), b("s"), E, c("s"), p("s", "SELECT 2"), b("s"), D, E, S), batch(b("s"), E, S),
    ],
    "a Parse that fails is not kept": [
        batch(p("s", "SELECT x FROM missing"), b("s"), E, S), batch(b("s"), E, S) if False else q("SELECT 1"),
        q("CREATE TABLE missing (x int)"), batch(p("s", "SELECT x FROM missing"), b("s"), E, S), q("DROP TABLE missing"),
    ],
    "an error in a pipeline": [
        Say(
            p("", "SELECT wrong") + b() + E + p("", "SELECT 1") + b() + E + S + p("", "SELECT 2") + b() + D + E + S,
            "ZZ",
        ),
        q("SELECT 3"),
    ],
    "an error behind good statements": [
        batch(p("good", "INSERT INTO t VALUES (3, 'three')"), b("good"), E, p("bad", "SELECT nope"), b("bad"), E, S),
        q("SELECT count(*) FROM t"), batch(b("good"), E, S), q("SELECT count(*) FROM t"),
    ],
    "a batch over two Syncs with errors": [
        Say(b"".join(p(f"n{i}", f"SELECT {i}/{i % 3}") + b(f"n{i}") + E + S for i in range(9)), "Z" * 9),
        batch(b("n1"), E, b("n2"), E, S),
    ],
    "portals with row limits": [
        q("BEGIN"), batch(p("", "SELECT generate_series(1, 5)"), b(portal="c"), S),
        batch(m.execute(b"c", 2), S), batch(m.execute(b"c", 2), S), batch(m.execute(b"c", 2), m.execute(b"c", 2), S),
        batch(close_portal("c"), S), q("COMMIT"),
    ],
    "a portal ends with its transaction": [
        batch(p("", "SELECT generate_series(1, 5)"), b(portal="c"), m.execute(b"c", 2), S), batch(m.execute(b"c", 2), S),
    ],
    "flush between": [
        batch(p("f", "SELECT $1::int"), ds("f"), H, until="T"), batch(b("f", b"1"), E, H, until="C"), batch(S),
        batch(p("", "SELECT 2"), ds(""), H, until="T"), batch(b(), E, S), batch(H, S),
    ],
    "flush with an error": [
        batch(p("", "SELECT nope"), ds(""), H, until="E"), batch(b(), E, H, p("", "SELECT 1"), S), q("SELECT 1"),
    ],
    "flush of a named statement known already": [
        batch(p("k1", "SELECT 9"), S), batch(p("k2", "SELECT 9"), H, until="1"), batch(c("k1"), H, until="3"),
        batch(ds("k2"), H, until="T"), batch(S),
    ],
    "sync alone": [batch(S), Say(S + S + S, "ZZZ")],
    "empty query in extended": [batch(p("", ""), b(), D, E, S), batch(p("e", "  -- nothing "), ds("e"), b("e"), E, S)],
    "function call": [Say(function_call(INT4PL_OID, struct.pack("!i", 40), struct.pack("!i", 2))), Say(function_call(99)), q("SELECT 1")],
    "transactions": [
        q("BEGIN"), q("INSERT INTO t VALUES (9)"), q("SAVEPOINT s"), q("SELECT 1/0"), q("SELECT 1"),
        q("ROLLBACK TO s"), q("SELECT count(*) FROM t"), q("COMMIT"), q("COMMIT"), q("ROLLBACK"), q("SELECT count(*) FROM t"),
    ],
    "commit of a failed transaction": [q("BEGIN"), q("INSERT INTO t VALUES (9)"), q("nonsense"), q("COMMIT"), q("SELECT count(*) FROM t")],
    "an implicit transaction of a batch": [
        batch(p("", "INSERT INTO t VALUES (5)"), b(), E, p("", "SELECT 1/0"), b(), E, S), q("SELECT count(*) FROM t"),
    ],
    "a query that ends a batch": [Say(p("", "SELECT 1") + b() + E + m.query("SELECT 2")), q("SELECT 3"), batch(S)],
    "a query behind a failed batch": [Say(p("", "SELECT nope") + b() + E + m.query("SELECT 2") + S), q("SELECT 3")],
    "copy in": [
        Say(m.query("COPY t FROM STDIN"), "G"), Say(m.copy_data(b"7\tseven\n") + m.copy_data(b"8\te") + m.copy_data(b"ight\n") + COPY_DONE),
        q("SELECT * FROM t ORDER BY a"),
    ],
    "copy in without waiting": [
        Say(m.query("COPY t FROM STDIN") + m.copy_data(b"7\tseven\n") + COPY_DONE + m.query("SELECT count(*) FROM t"), "ZZ"),
        Say(m.query("COPY t FROM STDIN") + m.copy_fail("no") + m.query("SELECT count(*) FROM t"), "ZZ"),
        Say(m.query("COPY missing FROM STDIN") + m.copy_data(b"7\tseven\n") + COPY_DONE + m.query("SELECT count(*) FROM t"), "ZZ"),
    ],
    "copy in fails": [Say(m.query("COPY t FROM STDIN"), "G"), Say(m.copy_data(b"x\ty\n"), "Z"), Say(m.copy_data(b"8\te\n") + COPY_DONE + m.query("SELECT 1"))],
    "copy in, the client fails it": [Say(m.query("COPY t FROM STDIN"), "G"), Say(m.copy_data(b"8\te\n") + m.copy_fail("enough")), q("SELECT count(*) FROM t")],
    "flush and sync in a copy": [
        Say(m.query("COPY t FROM STDIN"), "G"), Say(m.copy_data(b"8\te\n") + H + S + COPY_DONE), q("SELECT count(*) FROM t"),
    ],
    "copy in, extended": [
        Say(p("", "COPY t FROM STDIN") + b() + D + E + S, "G"), Say(m.copy_data(b"8\te\n") + COPY_DONE + S), q("SELECT count(*) FROM t"),
        Say(p("", "COPY t FROM STDIN") + b() + E + H, "G"), Say(m.copy_data(b"x\te\n") + COPY_DONE + S), q("SELECT count(*) FROM t"),
    ],
    "copy in, extended, without waiting": [
        Say(p("", "COPY t FROM STDIN") + b() + D + E + m.copy_data(b"8\te\n") + COPY_DONE + S + p("", "SELECT 1") + b() + E + S, "ZZ"),
        q("SELECT count(*) FROM t"),
    ],
    "copy out": [q("COPY t TO STDOUT"), batch(p("", "COPY t TO STDOUT"), b(), D, E, S), q("COPY missing TO STDOUT")],
    "DISCARD ALL forgets statements": [batch(p("s", "SELECT 1"), S), q("DISCARD ALL"), batch(b("s"), E, S), batch(p("s", "SELECT 2"), b("s"), E, S)],
    "DEALLOCATE ALL forgets statements": [
        batch(p("s", "SELECT 1"), S), q("BEGIN"), q("DEALLOCATE ALL"), batch(p("s", "SELECT 2"), b("s"), E, S), q("COMMIT"), batch(b("s"), E, S),
    ],
    "DEALLOCATE ALL in a pipeline": [
        batch(p("s", "SELECT 1"), S), Say(m.query("DEALLOCATE ALL") + p("s", "SELECT 2") + b("s") + E + S, "ZZ"), batch(b("s"), E, S),
    ],
    "DEALLOCATE ALL, extended": [
        batch(p("s", "SELECT 1"), p("r", "SELECT 5"), S), batch(p("", "DEALLOCATE ALL"), b(), E, S), batch(p("s", "SELECT 2"), b("s"), E, S), batch(b("s"), E, S),
    ],
    "DEALLOCATE": [
        batch(p("s", "SELECT 1"), S), q("DEALLOCATE s"), batch(p("s", "SELECT 2"), b("s"), E, S),
        Say(m.query("DEALLOCATE s") + m.query("SELECT 5"), "ZZ"), batch(p("s", "SELECT 3"), b("s"), E, S),
        batch(p("", "DEALLOCATE s"), b(), E, S), batch(p("s", "SELECT 4"), b("s"), E, S),
    ],
    "DEALLOCATE in a transaction": [
        batch(p("s", "SELECT 1"), S), q("BEGIN"), Say(m.query("DEALLOCATE s") + m.query("SELECT 5"), "ZZ"), q("COMMIT"),
    ],
    "DEALLOCATE in a failed transaction": [batch(p("s", "SELECT 1"), S), q("BEGIN"), q("nonsense"), q("DEALLOCATE s"), q("ROLLBACK"), batch(b("s"), E, S)],
    "DEALLOCATE of what does not exist": [q("DEALLOCATE nothing"), q("SELECT 1")],
    "PREPARE by SQL": [q("PREPARE s AS SELECT $1::int"), q("EXECUTE s(5)"), q("DEALLOCATE s"), q("EXECUTE s(5)"), q("PREPARE s AS nonsense"), q("EXECUTE s(5)")],
    "DDL between": [
        batch(p("s", "SELECT * FROM t ORDER BY a"), ds("s"), S), batch(b("s"), E, S), q("ALTER TABLE t ADD c int DEFAULT 5"),
        batch(p("s2", "SELECT * FROM t ORDER BY a"), ds("s2"), b("s2"), E, S),
    ],
    "settings": [
        q("SET search_path = pg_catalog"), q("SHOW search_path"), q("BEGIN"), q("SET LOCAL search_path = public"), q("SHOW search_path"),
        q("COMMIT"), q("SHOW search_path"), q("RESET search_path"), q("SHOW search_path"), q("SET work_mem = 'nonsense'"), q("SHOW work_mem"),
    ],
    "settings in transactions": [
        q("BEGIN"), q("SET work_mem = '5MB'"), q("ROLLBACK"), q("SHOW work_mem"), q("BEGIN"), q("SET work_mem = '6MB'"), q("SAVEPOINT a"),
        q("SET work_mem = '7MB'"), q("ROLLBACK TO a"), q("COMMIT"), q("SHOW work_mem"), q("SELECT set_config('work_mem', '8MB', false)"), q("SHOW work_mem"),
        q("BEGIN"), q("SELECT set_config('work_mem', '9MB', true)"), q("COMMIT"), q("SHOW work_mem"), q("RESET ALL"), q("SHOW work_mem"),
    ],
    "settings by the extended protocol": [
        batch(p("", "SET work_mem = '5MB'"), b(), E, S), q("SHOW work_mem"), batch(p("s", "SET work_mem = '6MB'"), S), batch(b("s"), E, S), q("SHOW work_mem"),
        batch(p("", "SELECT set_config('work_mem', $1, false)"), b("", b"7MB"), E, S), q("SHOW work_mem"), batch(p("", "RESET work_mem"), b(), E, S), q("SHOW work_mem"),
    ],
    "names of settings": [
        q("SET TIME ZONE 'Europe/Rome'"), q("SHOW TimeZone"), q("SET NAMES 'LATIN1'"), q("SHOW client_encoding"), q("SELECT 'grün'"), q("RESET client_encoding"),
        q("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"), q("SHOW transaction_read_only"), q("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"),
        q("SET custom.thing = 'a''b\\c'"), q("SHOW custom.thing"), q("SET datestyle = 'German'"), q("SELECT date '2026-01-31'"), q("DISCARD ALL"), q("SELECT date '2026-01-31'"),
    ],
    "roles": [q("SET ROLE pg_read_all_data"), q("SELECT current_user"), q("SET ROLE starling"), q("RESET ROLE"), q("SELECT current_user")],
    "notices": [q("DO $$ BEGIN RAISE NOTICE 'hello'; END $$"), q("SELECT 1")],
    "do blocks that set": [q("DO $$ BEGIN PERFORM set_config('work_mem', '5MB', false); END $$"), q("SHOW work_mem") if False else q("SELECT 1")],
    "temporary tables": [q("CREATE TEMP TABLE x AS SELECT 1 AS a"), q("SELECT * FROM x"), q("BEGIN"), q("SELECT * FROM x"), q("COMMIT"), q("DROP TABLE x"), q("SELECT * FROM x")],
    "a pinned client pipelines": [
        q("CREATE TEMP TABLE x AS SELECT 1 AS a"), batch(p("s", "SELECT 1"), S),
        Say(m.query("DEALLOCATE s") + m.query("SELECT * FROM x") + m.query("SELECT 2"), "ZZZ"),
    ],
    "cursors": [
        q("BEGIN"), q("DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 3)"), q("FETCH c"), q("COMMIT"), q("FETCH ALL c"), q("CLOSE c"), q("FETCH c"),
    ],
    "listening to oneself": [q("LISTEN murmurs"), Say(m.query("UNLISTEN murmurs")), q("SELECT 1")],
    "syntax errors everywhere": [q("SELEC 1"), batch(p("", "SELEC 1"), b(), E, S), q("SELECT 'open"), q('SELECT "x'), q("SELECT 1")],
    "wrong parameters": [batch(p("", "SELECT $1::int"), b("", b"1", b"2"), E, S), batch(p("", "SELECT $1::int"), b("", b"x"), E, S), q("SELECT 1")],
    "malformed bodies": [
        Say(m.message(b"B", b"\0\0\0\x07\0\0")  + S), Say(m.message(b"E", b"") + S), Say(m.message(b"D", b"X\0") + S), Say(m.message(b"C", b"X\0") + S),
        Say(p("", "SELECT 1") + m.message(b"H", b"x") + b() + E + S), Say(p("", "SELECT 1") + m.message(b"S", b"x")), Say(m.message(b"F", b"x")), q("SELECT 1"),
    ],
    "a malformed flush": [
        Say(m.query("SELECT 1") + m.message(b"H", b"x") + m.query("SELECT 2") + S), Say(m.message(b"H", b"x") + m.query("SELECT 3") + S),
        Say(m.query("COPY fuzz") + m.copy_data(b"f") + m.message(b"H", b"x") + m.query("SELECT 4") + S), q("SELECT 5"),
    ],
}  # fmt: skip


async def hold(client: FakeClient, steps: Sequence[Say], *, tear: int = 0) -> list[str]:
    """Everything heard, one line a message; `tear` sends in pieces of that many bytes."""
    heard: list[str] = []
    for step in steps:
        if tear:
            await client.send_torn(step.data, tear)
        else:
            client.send(step.data)
        for letter in step.until:
            last = ""
            while last != letter:
                try:
                    message = await client.read()
                except EOFError:
                    return [*heard, ENDED]
                except TimeoutError:
                    return [*heard, SILENCE]
                heard.append(shown(message))
                last = message.letter
    return heard


def shown(message: Message) -> str:
    """What must be equal; table OIDs and where in its source PostgreSQL stood are not."""
    if message.letter in "EN":
        fields = {name: value for name, value in message.fields.items() if name not in "FLR"}
        return f"{message.letter} {fields}"
    if message.letter == "T":
        found = [
            (c.name, c.type_oid, c.type_size, c.type_modifier, c.format) for c in m.parse_row_description(message.body)
        ]
        return f"T {found}"
    return f"{message.letter} {message.body!r}"
