"""The compiled build and the interpreted one are one program: the same bytes in give the same answers out.

The interpreted twin is loaded from the source file under another name. Where nothing is compiled (no C compiler, or
pytest run on the sources) there is nothing to compare, and the report's header says which build it is.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import re
import shlex
import shutil
import struct
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fakes.lane_riders import Client, Unit
from fakes.lane_stage import HOSTILE, LAST_WORDS, ORDINARY, LaneStage

from node import strip
from node.client.prepared import PreparedStatements
from node.routing.operands import Literal, Parameter
from node.routing.outcome import Values
from node.routing.shard_map import DefaultEntry, ListEntry, Mapping
from node.routing.topology import DataType, Hasher, ShardedTable, Topology
from node.wire import messages

ROOT = Path(__file__).resolve().parents[2]


MADE_OF = {
    "node.wire.pipeline": ("node.wire.reply_queue",),
    "node.pool.lanes": ("node.pool.lane",),
    "node.routing.lexer": ("node.routing.lexed", "node.routing.token_ends"),
}
"""What is one thing in several files: interpreted together, since C fields are out of reach for Python."""


def twins(name: str) -> tuple[ModuleType, ModuleType]:
    """(compiled, interpreted)."""
    compiled = importlib.import_module(name)
    if not strip.is_compiled(compiled):
        pytest.skip(f"{name} is not compiled here: one build cannot differ from itself")
    return compiled, interpreted_twin(name)


def interpreted_twin(name: str) -> ModuleType:
    other = f"interpreted.{name}"
    if other not in sys.modules:
        spec = importlib.util.spec_from_file_location(other, ROOT / f"{name.replace('.', '/')}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[other] = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            for part in MADE_OF.get(name, ()):
                patch.setitem(sys.modules, part, interpreted_twin(part))
                patch.setattr(part, interpreted_twin(part))
            spec.loader.exec_module(sys.modules[other])
    return sys.modules[other]


def outcome(action: Callable[[], Any]) -> object:
    """What it returns, or the error with its text: builds must fail alike too."""
    try:
        return action()
    except Exception as error:
        return type(error).__name__, str(error)


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Seeded by the report's seed, so that a failure can be repeated with -p randomly -p 'randomly_seed=…'."""
    return random.Random(random.random())


def test_all_of_the_strip_is_compiled_where_it_can_be() -> None:
    """A compiler's error only makes the install slower to run (setup.py), so that somebody has to notice it."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if Path(strip.__file__).is_relative_to(ROOT / "node"):
        pytest.skip("these are the sources, of which nothing is ever compiled in place")
    if os.environ.get("PGMURMUR_STRIP") == "off":
        pytest.skip("PGMURMUR_STRIP=off: interpreted on purpose")
    if not shutil.which(command) or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no C compiler here, or no Python.h")
    assert [name for name, fast in strip.compiled().items() if not fast] == []


@pytest.mark.parametrize("name", strip.STRIP)
def test_both_builds_offer_the_same_names(name: str) -> None:
    compiled, interpreted = twins(name)
    declarations = Path(str(interpreted.__file__)).with_suffix(".pxd").read_text()
    # What the .pxd declares as a C variable is the file's own; Python cannot see it and nobody imports it.
    in_c = {its for listed in re.findall(r"^cdef \w+ ([\w, ]+)$", declarations, re.M) for its in listed.split(", ")}
    # A class that the .pxd cimports is known as a C type, and no name of the compiled module.
    for listed in re.findall(r"^from [\w.]+ cimport ([\w, ]+)$", declarations, re.M):
        in_c |= set(listed.split(", "))
    wanted = {its for its in vars(interpreted) if not its.startswith("_") and its not in ("annotations", "cython")}
    assert {its for its in wanted - in_c if not hasattr(compiled, its)} == set()


def test_hashes_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.routing.hashing")
    for _ in range(2000):
        number = dice.choice((dice.getrandbits(63), dice.randint(-9, 9), -dice.getrandbits(63), 2**63, -(2**63) - 1))
        text = dice.randbytes(dice.randrange(80))
        for function, value in (("bigint", number), ("varchar", text), ("uuid", dice.randbytes(16)), ("sha1", text)):
            one, two = (outcome(lambda m=m, f=function, v=value: getattr(m, f)(v)) for m in (compiled, interpreted))
            assert one == two, f"{function}({value!r})"


def test_words_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.routing.hashing")
    for _ in range(1000):
        number = dice.choice((dice.getrandbits(64), dice.getrandbits(63), dice.randint(0, 9)))
        assert compiled.word(number) == interpreted.word(number) == compiled.bigint(number), number


SQL = """SELECT * FROM t WHERE a = 'it''s' AND b = $1 ORDER BY 1, x DESC LIMIT 10 -- end
; INSERT INTO "T" VALUES (1, -2.5e10, E'a\\nb', U&'d!0061' UESCAPE '!', $tag$ body $tag$, B'01', x'ff') ;
/* one /* two */ */ WITH q AS (VALUES (0x1F, 1_000)) SELECT q.*, 'a' 'b' FROM q GROUP BY 1; BEGIN NULL; END; q'[x]'
SELECT set_config('a', 'b', false); COPY t FROM STDIN; \0 é ß $ $1a 'open"""
PIECES = SQL.split(" ")


def test_lexers_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.routing.lexer")

    def seen(module: ModuleType, sql: bytes, flags: int) -> object:
        found = module.lex(sql, flags)
        values = [outcome(lambda i=i: found.literal_value(i)) for i in range(found.literal_count())]
        return (
            (found.shape, found.first, found.statements, found.broken, found.literals, found.spans(), values),
            found.comment_texts(),
            module.trace(sql, flags),
        )

    for _ in range(3000):
        sql = " ".join(dice.choices(PIECES, k=dice.randrange(25))).encode()
        if dice.random() < 0.3:
            cut = dice.randrange(len(sql) + 1)
            sql = sql[:cut] + dice.randbytes(dice.randrange(4)) + sql[cut + dice.randrange(3) :]
        flags = dice.randrange(4)
        assert seen(compiled, sql, flags) == seen(interpreted, sql, flags), (sql, flags)


def test_points_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.routing.point")
    texts = [b"12", b"-7", b"-", b"", b"007", b"9" * 18, b"-" + b"9" * 17, b"1" * 19, b"+1", b" 1", b"1_0", b"0x1",
             b"it", b"\xc3\xa9", b"\\", b"01234567-89ab-cdef-0123-456789abcdef", b"0123456789abcdef0123456789ABCDEF",
             b"0123-4567-89ab-cdef-0123-4567-89ab-cdef", b"{01234567-89ab-cdef-0123-456789abcdef}"]  # fmt: skip
    maps = (None, Mapping((ListEntry((1, b"it"), 2), DefaultEntry(9))))
    for _ in range(3000):
        rule = ShardedTable(
            None, "t", "k", dice.choice((DataType.BIGINT, DataType.VARCHAR, DataType.UUID)),
            dice.choice(list(Hasher)), dice.choice(maps),
        )  # fmt: skip
        topology = Topology("d", dice.randint(2, 5), (rule,))
        value = dice.choice((dice.choice(texts), dice.randbytes(dice.choice((1, 2, 4, 8, 16)))))
        before = dice.randbytes(dice.randrange(3))
        data, start, end = before + value + dice.randbytes(dice.randrange(3)), len(before), len(before) + len(value)
        how = (data, start, end, dice.random() < 0.5, dice.choice((0, 20, 21, 23, 25, 1043, 1042, 19, 2950, 2**32 - 1)))
        literal = dice.choice((value, b"'" + value + b"'", b"'" + value.replace(b"'", b"''") + b"'"))
        lexed = importlib.import_module("node.routing.lexer").lex(b"SELECT " + literal, dice.choice((0, 1)))
        operand = dice.choice((Parameter(1), Literal(0), Literal(0, True), Literal(1)))
        seen = []
        for module in (compiled, interpreted):
            point = module.made(operand, rule, topology, None, bound=False)
            values = Values(lexed, (value, None), (int(how[3]),), ())
            seen.append([outcome(lambda p=point, h=how: p.in_value(*h)), outcome(lambda p=point, t=lexed: p.in_text(t)),
                         outcome(lambda p=point, v=values: p.shard(v))])  # fmt: skip
        assert seen[0] == seen[1], (operand, rule, how, lexed.sql)


def stream(dice: random.Random, letters: str) -> bytes:
    """Messages of these letters, now and then with a length that is not theirs."""
    parts = []
    for _ in range(dice.randrange(1, 30)):
        body = dice.choice((b"", b"I", b"T", b"E", b"\0", b"SELECT 1\0", dice.randbytes(dice.randrange(40))))
        length = len(body) + 4
        if dice.random() < 0.01:
            length = dice.choice((0, 3, 2**31 - 1, 2**31, 2**32 - 1, length + 1))
        parts.append(dice.choice(letters).encode() + struct.pack("!I", length) + body)
    return b"".join(parts)


def torn(dice: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(dice.sample(range(len(data) + 1), min(len(data), dice.randrange(6))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def test_framing_agrees(dice: random.Random) -> None:
    compiled, interpreted = twins("node.wire.requests")

    def seen(module: ModuleType, chunks: list[bytes], limit: int, hold_copy: bool, by_unit: bool) -> object:
        requests = module.Requests(limit)
        requests.hold_copy = hold_copy
        heard: list[object] = []
        for chunk in chunks:
            requests.feed(chunk)
            if by_unit:
                heard.append(outcome(requests.unit))
            for _ in range(len(chunk) + 2):
                letter = requests.next()
                heard.append((letter, requests.buffer[requests.start : requests.end], requests.waiting_bytes()))
                if letter in (module.NOTHING, module.TOO_LONG):
                    break
            if heard[-1][0] == module.TOO_LONG:  # type: ignore[index]
                return heard, requests.length
        return heard

    for _ in range(2000):
        chunks = torn(dice, stream(dice, "QPBDESHCFdcfX"))
        how = (dice.choice((64, 1 << 20)), dice.random() < 0.5, dice.random() < 0.5)
        assert seen(compiled, chunks, *how) == seen(interpreted, chunks, *how), (chunks, how)


def test_batches_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.wire.batch")

    def unit() -> bytes:
        count = dice.randrange(4)
        values = [dice.choice((None, dice.randbytes(dice.randrange(5)))) for _ in range(count)]
        formats = dice.choice(((), (0,), (1,), (2,), (1, 0), tuple(dice.choices((0, 1), k=count))))
        parts = [
            messages.bind(b"", b"s", formats, values, dice.choice(((), (1,)))),
            dice.choice((messages.execute(), messages.describe_statement(b"s"), messages.FLUSH)),
            messages.SYNC,
        ]
        if dice.random() < 0.5:
            types = dice.choices((0, 20, 2**32 - 1), k=dice.randrange(3))
            parts.insert(dice.choice((0, 0, 0, 1)), messages.parse(dice.choice((b"s", b"s", b"t")), b"SELECT 1", types))
        data = bytearray(b"".join(parts))
        if dice.random() < 0.4:
            data[dice.randrange(len(data))] = dice.choice((0, 1, 255, dice.randrange(256)))
        return bytes(data)

    def seen(module: ModuleType, data: bytes, at: int, end: int) -> object:
        batch = module.Batch()
        if not batch.read(data, at, end):
            return None
        heard: list[object] = [batch.parsed, data[batch.name : batch.name_end]]
        if batch.parsed:
            heard.append(data[batch.sql : batch.sql_end])
        for number in range(-1, 6):
            heard += [batch.find(data, number), batch.start, batch.end, batch.binary, batch.type_of(data, number)]
        return heard

    accepted = 0
    for _ in range(3000):
        before, data = dice.randbytes(dice.randrange(3)), unit()
        whole, at, end = before + data + dice.randbytes(dice.randrange(3)), len(before), len(before) + len(data)
        end += dice.choice((0, 0, 0, 0, -1, 1))
        one, two = seen(compiled, whole, at, end), seen(interpreted, whole, at, end)
        assert one == two, (whole, at, end)
        accepted += one is not None
    assert accepted > 300


BATCH = (
    b"P\0\0\0\x11\0SELECT $1\0\0\0", b"B\0\0\0\x0c\0\0\0\0\0\0\0\0", b"B\0\0\0\x0d\0s\0\0\0\0\0\0\0", b"D\0\0\0\6P\0",
    b"D\0\0\0\6S\0", b"E\0\0\0\x09\0\0\0\0\0", b"C\0\0\0\6P\0", b"S\0\0\0\4",
)  # fmt: skip


def test_shared_batches_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.wire.requests")

    def seen(module: ModuleType, data: bytes, at: int, limit: int) -> object:
        requests = module.Requests(limit)
        requests.feed(data)
        whole = requests.batch(at)
        found = tuple(getattr(requests, f"{name}_{end}") for name in ("text", "name") for end in ("at", "end"))
        if whole:
            requests.at = len(data)
            requests.feed(data[:7])
            requests.give_back(data)
        return whole, requests.count, found, requests.bind_at, requests.buffer, requests.at, requests.waiting_bytes()

    accepted = 0
    for _ in range(5000):
        data = b"".join(part for part in BATCH if dice.random() < 0.7)
        if dice.random() < 0.3:
            cut = dice.randrange(len(data) + 1)
            data = data[:cut] + dice.randbytes(dice.randrange(3)) + data[cut + dice.randrange(3) :]
        how = (data, dice.choice((0, 0, 0, min(18, len(data)))), dice.choice((8, 1 << 20, 1 << 20)))
        one = seen(compiled, *how)
        accepted += bool(one[0])  # type: ignore[index]
        assert one == seen(interpreted, *how), how
    assert accepted > 100


def lane_steps(dice: random.Random) -> list[tuple[Any, ...]]:
    steps: list[tuple[Any, ...]] = []
    for number in range(dice.choice((20, 60, 120))):
        match dice.randrange(8):
            case 0 | 1 | 2:
                kind = dice.choice(ORDINARY * 6 + HOSTILE + LAST_WORDS)
                who = b"SELECT %d %s" % (dice.choice((number, dice.randrange(2))), kind.encode())
                steps.append(("board", dice.randrange(5), who, dice.choice(("query", "unnamed", "named"))))
            case 3 | 4:
                steps.append(("deliver", dice.randrange(3), dice.choice((1, 5, 20, 100, 10_000))))
            case 5:
                steps.append((dice.choice(("turn", "turn", "turn", "house")),))
            case 6:
                steps.append((dice.choice(("leave", "stop", "resume", "way")), dice.randrange(5)))
            case 7:
                steps.append(dice.choice((("time", dice.choice((0.01, 0.03, 0.3))), ("die", dice.randrange(9)))))
    return steps


def lane_log(module: ModuleType, steps: list[tuple[Any, ...]]) -> object:
    """What riders and servers hear of a conversation on the lanes of `module`."""
    stage = LaneStage(size=3, min_size=3, prepared_limit=3)
    pool = stage.pool
    made = module.Lanes(
        pool, pool.lanes.count, soon=lambda call: stage.soon.append(call), clock=lambda: stage.now,
        later=lambda after_s, call: stage.later.append((stage.now + after_s, call)),
    )  # fmt: skip
    made.prepared_limit = 3
    pool.lanes = made
    statements = PreparedStatements(10)
    clients = [Client(stage, number) for number in range(5)]
    log: list[object] = []
    for step in steps:
        match step:
            case ("board", number, who, how):
                client = clients[number]
                prepared = statements.use(b"SELECT %s" % (b"bad" if len(who) % 5 == 0 else b"a"), b"\0\0", "")
                if client.unit is None and not client.writing_paused:
                    client.take(Unit(who, how, prepared))
                elif client.lane is None and client.unit is not None:
                    client.ride()
            case ("deliver", pick, size) if pick < len(stage.servers):
                if stage.servers[pick].reading:
                    stage.servers[pick].deliver(size)
            case ("turn",):
                stage.turn()
            case ("house",):
                stage.keep_house()
                pool.tick(stage.now)
            case ("leave", number) if clients[number].unit is not None:
                clients[number].leave()
            case ("stop", number):
                clients[number].reads = False
            case ("resume", number):
                clients[number].resume()
            case ("way", number) if clients[number].lane is not None:
                clients[number].lane.make_way()
            case ("time", seconds):
                stage.pass_time(seconds)
            case ("die", pick) if pick < len(stage.servers):
                stage.servers[pick].die()
        lanes = [(lane.depth, lane.open, lane.heard, len(lane.outbox), len(lane.unsure)) for lane in made.active]
        known = [list(server.connection.prepared.values()) for server in stage.servers]
        log.append((step, lanes, known, made.ended, [(client.ends[:], client.heard) for client in clients]))
    stage.stop()
    units = [server.connection.pipeline.units for server in stage.servers]
    return log, [client.log for client in clients], vars_of(pool.counters), units


def vars_of(counters: Any) -> dict[str, Any]:
    names = [name for name in dir(counters) if name.startswith("lane")]
    return {name: getattr(counters, name) for name in names}


def test_lanes_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.pool.lanes")
    answered = 0
    for _ in range(150):
        steps = lane_steps(dice)
        one, two = lane_log(compiled, steps), lane_log(interpreted, steps)
        assert one == two, steps
        answered += str(one).count("answered")
    assert answered > 1000


def test_reply_queues_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.wire.pipeline")
    owners = ("a", "b")
    state = ("sent", "done", "tx_status", "batch", "failed", "copy_in", "broken", "errors", "units", "tag", "answered")
    state += ("skip_error", "last_error", "statuses", "stopped_at")

    def act(pipeline: Any, module: ModuleType, step: tuple[Any, ...]) -> object:
        match step:
            case ("replies", data, start):
                return pipeline.replies(data, start)
            case ("owe_fake", owner):
                return pipeline.owe_fake(module.FAKE_PARSE_COMPLETE, owner)
            case ("shared", shared):
                pipeline.shared = shared
                return None
            case ("owe_unit", count, owner):
                return pipeline.owe_unit(count, owner)
            case ("change_owner", owner, to):
                return pipeline.change_owner(owner, to), pipeline.head_owner(), pipeline.all_owners()
            case (name,):
                return getattr(pipeline, name)()
            case (name, owner):
                return getattr(pipeline, name)(owner)
        raise AssertionError(step)

    with_owner = ("owe_query", "owe_skipped_query", "owe_skipped", "owe_fake", "owe_sync")
    for _ in range(1000):
        pair = [(compiled, compiled.Pipeline()), (interpreted, interpreted.Pipeline())]
        steps: list[tuple[Any, ...]] = []
        for _ in range(dice.randrange(40)):
            match dice.randrange(6):
                case 0:
                    steps.append((dice.choice(with_owner), dice.choice(owners)))
                case 1:
                    steps.append((dice.choice(("owe", "owe", "owe", "copy_ended")),))
                case 2:
                    steps.append(("owe_unit", dice.randrange(5), dice.choice(owners)))
                case 3:
                    changed = ("change_owner", dice.choice(owners), dice.choice((*owners, None)))
                    steps.append(dice.choice((("shared", dice.random() < 0.5), changed)))
                case _:
                    steps += [("replies", chunk, 0) for chunk in torn(dice, stream(dice, "ZZCCDT12nstENSAGHdcI3"))]
        for step in steps:
            answers = [outcome(lambda p=p, m=m, s=step: act(p, m, s)) for m, p in pair]
            assert answers[0] == answers[1], (steps, step)
            one, two = ({name: getattr(pipeline, name) for name in state} for _, pipeline in pair)
            assert one == two, (steps, step)
            if one["broken"]:
                break


def test_statement_caches_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.routing.cache")
    texts = (
        b"SELECT 1",
        b"SELECT 2",
        b"SELECT $1",
        b"select $1 ;",
        b"SELECT a",
        b"SELEC",
        b"SELECT 5::float(24)",
        b"BEGIN",
    )
    for _ in range(100):
        pair = [
            module.StatementCache(dice_limit)
            for dice_limit in (dice.randrange(4),)
            for module in (compiled, interpreted)
        ]
        for _ in range(30):
            sql, step = dice.choice(texts), dice.randrange(20)
            heard = []
            for cache in pair:
                if step == 0:
                    cache.clear()
                elif step == 1:
                    cache.resize(2)
                found = outcome(lambda c=cache, t=sql: c.lookup(t)[1].sql)
                entry = None if isinstance(found, tuple) else cache.find(sql)
                heard.append((found, cache.hits, cache.misses, cache.rows(), len(cache), entry and entry.shape,
                              entry and entry.hits, cache.lexed is None))  # fmt: skip
            assert heard[0] == heard[1], (sql, step)


def test_merges_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.gather.merge")

    def row(columns: int) -> bytes:
        fields = [None if dice.random() < 0.2 else dice.randbytes(dice.randrange(4)) for _ in range(columns)]
        body = struct.pack("!H", columns) + b"".join(
            b"\xff\xff\xff\xff" if field is None else struct.pack("!I", len(field)) + field for field in fields
        )
        return body if dice.random() < 0.99 else body[: dice.randrange(len(body) + 1)]

    def seen(module: ModuleType, keys: list[Any], distinct: bool, settings: tuple[int, ...], feed: list[Any]) -> object:
        specs = [module.KeySpec(column, kind, None, descending, first) for column, kind, descending, first in keys]
        columns, visible, shards, limit, offset = settings
        merge = module.Merge(
            module.Rows(columns, visible), shards, specs, specs if distinct else None, limit, offset, 64, 512
        )
        heard: list[object] = []
        for shard, body in feed:
            action = (lambda s=shard: merge.finish(s)) if body is None else (lambda s=shard, b=body: merge.feed(s, b))
            answer = outcome(action)
            heard.append((answer, merge.take(), merge.complete, merge.rows, merge.hungry(), merge.buffered_bytes))
            if isinstance(answer, tuple):
                break
        return heard

    for _ in range(500):
        columns, shards = dice.randint(1, 4), dice.randint(1, 3)
        keys = [
            (dice.randrange(columns), dice.choice((0, 1)), dice.random() < 0.5, dice.random() < 0.5)
            for _ in range(dice.randrange(3))
        ]
        feed: list[Any] = [(dice.randrange(shards), row(columns)) for _ in range(dice.randrange(20))]
        feed += [(shard, None) for shard in range(shards)]
        settings = (columns, dice.randint(1, columns), shards, dice.choice((-1, 0, 3)), dice.choice((0, 0, 2)))
        how = (keys, bool(keys) and dice.random() < 0.5, settings, feed)
        assert seen(compiled, *how) == seen(interpreted, *how), how


DELIMITED = r"""1 22 \N \. \ \x41 \101 x , ; " ' é""".encode().split(b" ") + [b"\t", b"\n", b"\r", b"\r\n", b""]


def test_copies_agree(dice: random.Random) -> None:
    compiled, interpreted = twins("node.gather.copy")

    def binary() -> bytes:
        data = b"PGCOPY\n\xff\r\n\0" + struct.pack("!II", dice.choice((0, 0, 0, 1 << 16)), dice.choice((0, 0, 3)))
        data += bytes(dice.choice((0, 0, 3)))
        for _ in range(dice.randrange(6)):
            fields = [dice.choice((None, dice.randbytes(dice.randrange(5)))) for _ in range(dice.randint(1, 3))]
            data += struct.pack("!h", len(fields)) + b"".join(
                struct.pack("!i", -1 if field is None else len(field)) + (field or b"") for field in fields
            )
        data += dice.choice((b"\xff\xff", b"\xff\xff", b"", b"\xff", b"\xff\xffmore"))
        return data if dice.random() < 0.8 else data[: dice.randrange(len(data) + 1)] + dice.randbytes(2)

    def seen(module: ModuleType, how: dict[str, Any], limit: int, chunks: list[bytes]) -> object:
        splitter = module.CopySplitter(module.CopyFormat(**how), limit)
        heard: list[object] = []
        for action in [*(lambda c=chunk: splitter.feed(c) for chunk in chunks), splitter.finish]:
            answer = outcome(action)
            heard.append((answer, splitter.prelude, splitter.trailer, splitter.ended, splitter.held_bytes))
            if isinstance(answer, tuple):
                break
        return heard

    for _ in range(3000):
        kind = dice.choice((interpreted.TEXT, interpreted.CSV, interpreted.BINARY))
        how: dict[str, Any] = {"kind": kind, "key": dice.randrange(3), "key_name": "k"}
        data = binary()
        if kind != interpreted.BINARY:
            data = b"".join(dice.choices(DELIMITED, k=dice.randrange(40)))
            how["header"] = dice.random() < 0.3
            how["delimiter"] = dice.choice((None, b";"))
            how["null"] = dice.choice((None, b"x"))
            how["end_marker"] = dice.choice((None, True))
        if kind == interpreted.CSV:
            how["quote"] = dice.choice((b'"', b"'"))
            how["escape"] = dice.choice((None, b"\\"))
            how["force_null"] = dice.random() < 0.3
            how["force_not_null"] = not how["force_null"] and dice.random() < 0.3
        limit, chunks = dice.choice((8, 1 << 20)), torn(dice, data)
        assert seen(compiled, how, limit, chunks) == seen(interpreted, how, limit, chunks), (how, limit, chunks)
