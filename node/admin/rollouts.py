"""ROLLOUT, ROLLBACK TO and EVICT: changes of the whole flock.

ROLLOUT answers one row per node when it commits and is an ERROR when it does not, so that a script notices. With
REPORT it answers rows however it ends: the command line tool prints them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from node.admin.answers import Answer, Field, Notice, Row, Type
from node.admin.call import Call
from node.admin.ports import RolloutReport, RolloutRequest
from node.errors import ClientFault

if TYPE_CHECKING:
    from node.admin.tokens import Arguments

TIMEOUT_LIMIT_S = 86_400

FIELDS = (
    Field("outcome", Type.TEXT),
    Field("id", Type.BIGINT),
    Field("version", Type.BIGINT),
    Field("digest", Type.TEXT),
    Field("reason", Type.TEXT),
    # then of each node
    Field("node", Type.TEXT),
    Field("node_version", Type.BIGINT),
    Field("paused_ms", Type.NUMERIC),
    Field("drained_ms", Type.NUMERIC),
    Field("ack", Type.BOOL),
    Field("node_reason", Type.TEXT),
)


async def rollout(call: Call) -> Answer:
    """`ROLLOUT [CONFIG 'text'] [USERS 'text'] [DRY RUN] [TIMEOUT seconds] [REPORT]`, in any order."""
    return await _perform(call, RolloutRequest())


async def rollback(call: Call) -> Answer:
    version = call.arguments.integer("the number of a version")
    return await _perform(call, RolloutRequest(to_version=version))


async def _perform(call: Call, request: RolloutRequest) -> Answer:
    request, report_wanted = _options(call.arguments, request)
    try:
        report = await call.node.rollout(request)
    except ClientFault as fault:
        if not report_wanted:
            raise
        return Answer(call.words[0], FIELDS, _rows(refusal(fault)))
    notices = [Notice(note) for note in report.notes]
    answer = Answer(call.words[0], FIELDS, _rows(report), notices)
    good = report.accepted if request.dry_run else report.outcome == "committed"
    if not good and not report_wanted:
        answer.fault = _fault(report)
    return answer


def _options(arguments: Arguments, request: RolloutRequest) -> tuple[RolloutRequest, bool]:
    report = False
    with_texts = request.to_version is None
    seen: set[str] = set()
    while arguments.more:
        before = arguments.at
        if with_texts and arguments.keyword("CONFIG"):
            request = replace(request, config=arguments.string("the configuration as a string"))
        elif with_texts and arguments.keyword("USERS"):
            request = replace(request, users=arguments.string("the users file as a string"))
        elif arguments.keyword("DRY", "RUN"):
            request = replace(request, dry_run=True)
        elif arguments.keyword("TIMEOUT"):
            request = replace(request, timeout_s=_seconds(arguments))
        elif arguments.keyword("REPORT"):
            report = True
        else:
            raise arguments.wrong("CONFIG, USERS, DRY RUN, TIMEOUT or REPORT" if with_texts else "DRY RUN or TIMEOUT")
        word = arguments.tokens[before].text.upper()
        if word in seen:
            arguments.at = before
            raise arguments.wrong("each part once")
        seen.add(word)
    return request, report


def _seconds(arguments: Arguments) -> float:
    text = arguments.name("seconds")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= TIMEOUT_LIMIT_S:
        arguments.at -= 1
        raise arguments.wrong(f"a number of seconds up to {TIMEOUT_LIMIT_S}")
    return value


def refusal(fault: ClientFault) -> RolloutReport:
    """Nothing was opened: why, with every error."""
    parts = [fault.message, *((fault.detail,) if fault.detail else ()), *((fault.hint,) if fault.hint else ())]
    return RolloutReport("aborted", 0, None, None, "\n".join(parts), ())


def _rows(report: RolloutReport) -> list[Row]:
    """One row per node; without nodes one row, or the outcome would be lost."""
    whole = (report.outcome, report.rid or None, report.version, report.digest, report.reason)
    if not report.nodes:
        return [(*whole, None, None, None, None, None, None)]
    return [(*whole, n.node, n.version, n.paused_ms, n.drained_ms, n.ack, n.reason) for n in report.nodes]


def _fault(report: RolloutReport) -> ClientFault:
    reasons = [f"{node.node}: {node.reason}" for node in report.nodes if node.reason]
    detail = "\n".join(reasons) or None
    if report.outcome == "unknown":
        return ClientFault(
            f"the outcome of rollout {report.rid} is not known yet: {report.reason}",
            sqlstate="40003",
            detail=detail,
            hint="SHOW ROLLOUT on any node tells when it is",
        )
    return ClientFault(f"rollout was aborted and nothing changed: {report.reason}", sqlstate="40000", detail=detail)


async def evict(call: Call) -> Answer:
    member = call.arguments.name("the name of a node")
    call.arguments.end()
    await call.node.evict(member)
    return Answer("EVICT")
