"""From a parse tree to a `Statement`: one table of statement kinds, one walk for everything below them."""

from __future__ import annotations

import re
from typing import Any, Final

from pglast import ast, enums

from node.routing.operands import Cast, Constant, Operand, operand_of, type_name
from node.routing.scopes import Reference, Scopes
from node.routing.select_names import SYSTEM_COLUMNS
from node.routing.statement import DEFAULT, UNKNOWN, Cell, Copy, Effects, Insert, Kind, Statement

# Functions that write, or whose answer belongs to the primary or to this session.
_WRITING = """
    nextval setval currval lastval set_config pg_notify txid_current pg_current_xact_id pg_logical_emit_message
    pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all
    pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
    pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared lo_creat lo_create lo_import lo_unlink lo_put
    lo_from_bytea lo_open lo_truncate lo_truncate64 lowrite lo_export dblink dblink_exec dblink_connect
    pg_switch_wal pg_create_restore_point pg_create_logical_replication_slot pg_create_physical_replication_slot
    pg_drop_replication_slot pg_replication_origin_create pg_terminate_backend pg_cancel_backend pg_reload_conf
    pg_rotate_logfile pg_stat_reset pg_stat_reset_shared pg_promote pg_backup_start pg_backup_stop
    pg_export_snapshot pg_sequence_last_value brin_summarize_new_values gin_clean_pending_list"""
WRITING: Final = frozenset(_WRITING.split())
SESSION_LOCKS: Final = frozenset(
    ("pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared")
)
_TRANSACTION: Final = {
    0: Kind.BEGIN, 1: Kind.BEGIN, 2: Kind.COMMIT, 3: Kind.ROLLBACK, 4: Kind.SAVEPOINT, 5: Kind.RELEASE,
    6: Kind.ROLLBACK_TO, 7: Kind.PREPARE_TRANSACTION, 8: Kind.COMMIT_PREPARED, 9: Kind.ROLLBACK_PREPARED,
}  # fmt: skip
_SIMPLE: Final[dict[type, tuple[Kind, str]]] = {
    ast.VariableShowStmt: (Kind.SHOW, "SHOW"),
    ast.ExecuteStmt: (Kind.EXECUTE, "EXECUTE"),
    ast.DeallocateStmt: (Kind.DEALLOCATE, "DEALLOCATE"),
    ast.FetchStmt: (Kind.FETCH, "FETCH"),
    ast.ClosePortalStmt: (Kind.CLOSE, "CLOSE CURSOR"),
    ast.ListenStmt: (Kind.LISTEN, "LISTEN"),
    ast.UnlistenStmt: (Kind.UNLISTEN, "UNLISTEN"),
    ast.NotifyStmt: (Kind.NOTIFY, "NOTIFY"),
    ast.DiscardStmt: (Kind.DISCARD, "DISCARD"),
    ast.LockStmt: (Kind.LOCK, "LOCK TABLE"),
    ast.CallStmt: (Kind.CALL, "CALL"),
    ast.DoStmt: (Kind.DO, "DO"),
    ast.VacuumStmt: (Kind.VACUUM, "VACUUM"),
    ast.TruncateStmt: (Kind.TRUNCATE, "TRUNCATE TABLE"),
    ast.CheckPointStmt: (Kind.CHECKPOINT, "CHECKPOINT"),
    ast.LoadStmt: (Kind.LOAD, "LOAD"),
    ast.ConstraintsSetStmt: (Kind.SET, "SET CONSTRAINTS"),
}
_EFFECTS: Final = {
    Kind.LISTEN: Effects.LISTEN, Kind.UNLISTEN: Effects.LISTEN, Kind.DISCARD: Effects.DISCARD, Kind.LOAD: Effects.LOAD,
    Kind.CALL: Effects.OPAQUE, Kind.DO: Effects.OPAQUE, Kind.PREPARE: Effects.SQL_PREPARE,
    Kind.DEALLOCATE: Effects.SQL_PREPARE,
}  # fmt: skip
_QUERIES: Final[dict[type, Kind]] = {
    ast.SelectStmt: Kind.SELECT,
    ast.InsertStmt: Kind.INSERT,
    ast.UpdateStmt: Kind.UPDATE,
    ast.DeleteStmt: Kind.DELETE,
    ast.MergeStmt: Kind.MERGE,
}
_CLOSED_TO_BLOCKS: Final = (
    ast.CreatedbStmt, ast.DropdbStmt, ast.CreateTableSpaceStmt, ast.DropTableSpaceStmt, ast.AlterSystemStmt,
    ast.CreateSubscriptionStmt, ast.DropSubscriptionStmt, ast.AlterSubscriptionStmt, ast.AlterDatabaseStmt,
    ast.CreatedbStmt,
)  # fmt: skip

_BETWEEN: Final = frozenset(
    (
        enums.A_Expr_Kind.AEXPR_BETWEEN,
        enums.A_Expr_Kind.AEXPR_NOT_BETWEEN,
        enums.A_Expr_Kind.AEXPR_BETWEEN_SYM,
        enums.A_Expr_Kind.AEXPR_NOT_BETWEEN_SYM,
    )
)


def facts(node: Any, part: int, is_marked: bool) -> Statement:
    """Never refuses: what a statement means for several shards is for `plan` to say."""
    query = _QUERIES.get(type(node))
    if query is not None:
        return _query(node, query, part, is_marked)
    match node:
        case ast.TransactionStmt():
            return _transaction(node, part)
        case ast.VariableSetStmt():
            return _set(node, part)
        case ast.CopyStmt():
            return _copy(node, part, is_marked)
        case ast.ExplainStmt():
            analyze = any(o.defname == "analyze" and _is_on(o.arg) for o in node.options or ())
            return _about(node.query, Kind.EXPLAIN, "EXPLAIN", part, is_marked, analyze=analyze)
        case ast.PrepareStmt():
            return _about(node.query, Kind.PREPARE, "PREPARE", part, is_marked, name=node.name)
        case ast.DeclareCursorStmt():
            hold = bool((node.options or 0) & 0x0020)  # CURSOR_OPT_HOLD
            return _about(node.query, Kind.DECLARE, "DECLARE CURSOR", part, is_marked, name=node.portalname, hold=hold)
        case ast.CreateTableAsStmt():
            return _create_as(node, part, is_marked)
    simple = _SIMPLE.get(type(node))
    if simple is not None:
        return _simple(node, *simple, part, is_marked)
    return _ddl(node, part, is_marked)


def _query(node: Any, kind: Kind, part: int, is_marked: bool) -> Statement:
    scopes = Scopes(is_marked)
    scopes.statement(node)
    seen = _Walk(node)
    into = seen.into
    writes = kind != Kind.SELECT or scopes.data_modifying_ctes or into is not None
    effects = seen.effects
    temporary = into is not None and into.rel.relpersistence == "t"
    if temporary:
        effects |= Effects.TEMP_TABLE
    written = [r for r in scopes.references if r.written]
    return Statement(
        kind,
        "SELECT INTO" if into is not None else kind.upper(),
        tables=tuple(scopes.references),
        levels=tuple(scopes.levels),
        target=_target(node, written),
        read_only=not writes and not seen.locks_rows and not seen.writing,
        locks_rows=seen.locks_rows,
        effects=effects,
        set_names=seen.set_names,
        set_local=seen.set_local,
        functions=tuple(seen.functions),
        clock_keywords=seen.clock_keywords,
        sets_default=seen.sets_default,
        system_columns=seen.system_columns,
        operators=tuple(seen.operators),
        types=tuple(seen.types),
        attributes=tuple(seen.attributes),
        user_keywords=seen.user_keywords,
        samples=seen.samples,
        parameters=seen.parameters,
        mentions=tuple(seen.mentions.items()),
        compared=tuple(seen.compared),
        casts=tuple(seen.casts),
        insert=_insert(node, is_marked) if kind == Kind.INSERT else None,
        assigns=_assigns(node, is_marked),
        returning=bool(getattr(node, "returningClause", None)),
        modifying_ctes=scopes.data_modifying_ctes,
        cte_assigns=tuple(scopes.cte_assigns),
        temporary=temporary,
        part=part,
        is_marked=is_marked,
    )


def _target(node: Any, written: list[Reference]) -> Reference | None:
    relation = getattr(node, "relation", None)
    if relation is None:
        return None
    named = [r for r in written if r.name == relation.relname and r.schema == relation.schemaname]
    return named[-1] if named else None


class _Walk:
    """One pass over a whole tree for what does not depend on query levels."""

    def __init__(self, root: Any) -> None:
        self.functions: dict[tuple[str | None, str], None] = {}
        self.parameters = 0
        self.mentions: dict[int, int] = {}
        self.compared: list[tuple[int, str]] = []
        self.casts: list[tuple[int, str]] = []
        self.locks_rows = False
        self.writing = False
        self.clock_keywords = False
        self.sets_default = False
        self.system_columns = False
        self.operators: dict[str, None] = {}
        self.types: dict[tuple[str | None, str], None] = {}
        self.attributes: dict[str, None] = {}
        self.user_keywords = False
        self.samples = False
        self.into: Any = None
        self.effects = Effects.NONE
        self.set_names: tuple[str, ...] = ()
        self.set_local = True
        stack = [root]
        while stack:
            node = stack.pop()
            if isinstance(node, (tuple, list)):
                stack.extend(node)
            elif isinstance(node, ast.Node):
                self._visit(node)
                stack.extend(getattr(node, name) for name in node)
        if not self.set_names:
            self.set_local = False

    def _visit(self, node: Any) -> None:
        match node:
            case ast.ParamRef():
                number = node.number or 0
                self.parameters = max(self.parameters, number)
                self.mentions[number] = self.mentions.get(number, 0) + 1
            case ast.TypeCast() if isinstance(node.arg, ast.ParamRef):
                self.casts.append((node.arg.number or 0, type_name(node.typeName) or ""))
            case ast.FuncCall():
                self._function(node)
            case ast.SetToDefault():
                self.sets_default = True
            case ast.ColumnRef():
                last = node.fields[-1] if node.fields else None
                self.system_columns = self.system_columns or getattr(last, "sval", None) in SYSTEM_COLUMNS
                if len(node.fields or ()) > 1:
                    self._attribute(last)
            case ast.A_Indirection():
                for part in node.indirection or ():
                    self._attribute(part)
            case ast.A_Expr():
                if node.name and node.kind not in _BETWEEN:  # these are named by their keywords, and compare
                    self._operator(node.name)
                self._beside(node.lexpr, node.rexpr)
            case ast.SubLink():
                if node.operName:
                    self._operator(node.operName)
            case ast.SortBy():
                if node.useOp:
                    self._operator(node.useOp)
            case ast.TypeName():
                if node.names:
                    names = [str(part.sval) for part in node.names]
                    self.types[(names[-2] if len(names) > 1 else None, names[-1])] = None
            case ast.RangeTableSample():
                self.samples = True
            case ast.SQLValueFunction():
                if node.op is not None and node.op <= enums.SQLValueFunctionOp.SVFOP_LOCALTIMESTAMP_N:
                    self.clock_keywords = True
                else:
                    self.user_keywords = True
            case ast.SelectStmt():
                self.locks_rows = self.locks_rows or bool(node.lockingClause)
                if node.intoClause is not None:
                    self.into = node.intoClause

    def _beside(self, left: Any, right: Any) -> None:
        """Parameters compared with a column. Of other operators the type is not certain: they are no comparison."""
        for one, others in ((left, right), (right, left)):
            if not isinstance(one, ast.ColumnRef) or not one.fields or not isinstance(one.fields[-1], ast.String):
                continue
            for other in others if isinstance(others, (tuple, list)) else (others,):
                if isinstance(other, ast.ParamRef):
                    self.compared.append((other.number or 0, str(one.fields[-1].sval)))

    def _operator(self, names: Any) -> None:
        self.operators[names[-1].sval] = None

    def _attribute(self, part: Any) -> None:
        if isinstance(part, ast.String):
            self.attributes[str(part.sval)] = None

    def _function(self, node: Any) -> None:
        names = [part.sval for part in node.funcname]
        name = names[-1]
        self.functions[(names[-2] if len(names) > 1 else None, name)] = None
        if name not in WRITING:
            return
        self.writing = True
        if name in SESSION_LOCKS:
            self.effects |= Effects.ADVISORY_LOCK
        elif name in ("nextval", "setval", "currval", "lastval"):
            self.effects |= Effects.SEQUENCE
        elif name == "set_config":
            args = [operand_of(arg, False) for arg in node.args or ()]
            setting, local = (args[0], _plain(args[2])) if len(args) == 3 else (None, None)
            self.effects |= Effects.SETS
            known = isinstance(setting, Constant) and isinstance(setting.value, bytes)
            self.set_names += (setting.value.decode().lower() if known else "*",)  # type: ignore[union-attr]
            truth = local.value if isinstance(local, Constant) else None
            self.set_local = self.set_local and truth in (True, b"t", b"true", b"on", b"1", b"yes")


def _plain(operand: Operand | None) -> Operand | None:
    return operand.operand if isinstance(operand, Cast) else operand


def _insert(node: Any, is_marked: bool) -> Insert:
    columns = tuple(t.name for t in node.cols) if node.cols else None
    if node.cols and any(t.indirection for t in node.cols):
        columns = tuple(f"{t.name}.*" if t.indirection else t.name for t in node.cols)
    conflict = node.onConflictClause
    select = node.selectStmt
    rows: tuple[tuple[Cell, ...], ...] | None = ()
    if select is not None:
        rows = None
        plain = not (select.withClause or select.sortClause or select.limitCount or select.limitOffset)
        if select.valuesLists and plain:
            rows = tuple(tuple(_cell(cell, is_marked) for cell in row) for row in select.valuesLists)
    return Insert(
        columns,
        rows,
        None if conflict is None else "update" if conflict.action == 2 else "nothing",
        tuple(t.name for t in (conflict.targetList or ())) if conflict is not None else (),
        node.returningClause is not None,
        node.override not in (None, enums.OverridingKind.OVERRIDING_NOT_SET),
    )


def _cell(node: Any, is_marked: bool) -> Cell:
    if isinstance(node, ast.SetToDefault):
        return DEFAULT
    operand = operand_of(node, is_marked)
    return UNKNOWN if operand is None else operand


def _assigns(node: Any, is_marked: bool) -> tuple[tuple[str, Operand | None], ...]:
    targets: list[Any] = []
    if isinstance(node, ast.UpdateStmt):
        targets = list(node.targetList or ())
    elif isinstance(node, ast.MergeStmt):
        for clause in node.mergeWhenClauses or ():
            if clause.commandType == enums.CmdType.CMD_UPDATE:
                targets += clause.targetList or ()
    return tuple((t.name, None if t.indirection else operand_of(t.val, is_marked)) for t in targets)


def _transaction(node: Any, part: int) -> Statement:
    kind = _TRANSACTION[int(node.kind)]
    options = []
    for option in node.options or ():
        value = option.arg
        constant = getattr(value, "val", value)
        shown = getattr(constant, "sval", None)
        if shown is None:
            shown = str(getattr(constant, "ival", getattr(constant, "boolval", "")) or 0)
        options.append(f"{option.defname}={shown}")
    return Statement(
        kind,
        kind.replace("_", " ").upper(),
        read_only="transaction_read_only=1" in options,
        transaction_options=tuple(options),
        chain=bool(node.chain),
        name=node.savepoint_name or node.gid,
        transactional=kind not in (Kind.COMMIT_PREPARED, Kind.ROLLBACK_PREPARED),
        part=part,
    )


def _set(node: Any, part: int) -> Statement:
    kinds = enums.VariableSetKind
    name = (node.name or "").lower()
    if node.kind == kinds.VAR_RESET_ALL:
        names: tuple[str, ...] = ("*",)
    elif node.kind == kinds.VAR_SET_MULTI:
        names = (name,)  # "transaction snapshot", "session characteristics", "transaction"
    else:
        names = (name,)
    reset = node.kind in (kinds.VAR_RESET, kinds.VAR_RESET_ALL)
    values = []
    for arg in node.args or ():
        constant = getattr(arg, "val", None)
        text = getattr(constant, "sval", None) or getattr(constant, "fval", None)
        if text is None and constant is not None:
            text = str(getattr(constant, "ival", None) or getattr(constant, "boolval", None) or 0)
        values.append(text or "")
    lasting = not node.is_local and name not in ("transaction", "transaction snapshot")
    return Statement(
        Kind.RESET if reset else Kind.SET,
        "RESET" if reset else "SET",
        effects=Effects.SETS if lasting else Effects.NONE,
        set_names=names,
        set_local=not lasting,
        set_value=", ".join(values) if node.kind == kinds.VAR_SET_VALUE else None,
        transaction_options=_characteristics(node),
        part=part,
    )


def _characteristics(node: Any) -> tuple[str, ...]:
    found = []
    for arg in node.args or ():
        if isinstance(arg, ast.DefElem):
            constant = getattr(arg.arg, "val", None)
            found.append(f"{arg.defname}={getattr(constant, 'sval', None) or getattr(constant, 'ival', 0) or 0}")
    return tuple(found)


def _copy(node: Any, part: int, is_marked: bool) -> Statement:
    options = []
    for option in node.options or ():
        arg = option.arg
        if isinstance(arg, (tuple, list)):
            text = ",".join(str(getattr(a, "sval", "")) for a in arg)
        elif arg is None:
            text = "true"
        else:
            text = str(
                next((v for a in ("sval", "ival", "fval", "boolval") if (v := getattr(arg, a, None)) is not None), "*")
            )
        options.append((option.defname, text))
    settings = dict(options)
    columns = tuple(c.sval for c in node.attlist) if node.attlist else None
    copy = Copy(
        columns,
        settings.get("format", "text").lower(),
        tuple(options),
        node.filename is not None or bool(node.is_program),
        node.whereClause is not None,
        node.query is not None,
    )
    kind = Kind.COPY_FROM if node.is_from else Kind.COPY_TO
    if node.query is not None:
        inner = facts(node.query, part, is_marked)
        return Statement(
            kind, "COPY", inner=inner, copy=copy, tables=inner.tables, read_only=inner.read_only, part=part,
            effects=inner.effects, set_names=inner.set_names, set_local=inner.set_local, functions=inner.functions,
        )  # fmt: skip
    table = Reference(0, 0, node.relation.schemaname, node.relation.relname, "", False, bool(node.is_from))
    return Statement(
        kind, "COPY", tables=(table,), target=table, copy=copy, read_only=not node.is_from and node.filename is None,
        part=part,
    )  # fmt: skip


def _about(
    query: Any, kind: Kind, tag: str, part: int, is_marked: bool, *,
    name: str | None = None, hold: bool = False, analyze: bool = False,
) -> Statement:  # fmt: skip
    inner = facts(query, part, is_marked)
    effects = _EFFECTS.get(kind, Effects.NONE)
    if kind == Kind.DECLARE or analyze:
        effects |= inner.effects
    if hold:
        effects |= Effects.HOLD_CURSOR
    read_only = inner.read_only if kind == Kind.DECLARE or analyze else kind == Kind.EXPLAIN
    return Statement(
        kind, tag, tables=inner.tables, levels=inner.levels, inner=inner, analyze=analyze, name=name, part=part,
        read_only=read_only, effects=effects, functions=inner.functions, parameters=inner.parameters,
        set_names=inner.set_names if analyze else (), set_local=inner.set_local, is_marked=is_marked,
    )  # fmt: skip


def _create_as(node: Any, part: int, is_marked: bool) -> Statement:
    inner = facts(node.query, part, is_marked)
    temporary = node.into.rel.relpersistence == "t"
    tag = "CREATE MATERIALIZED VIEW" if node.objtype == enums.ObjectType.OBJECT_MATVIEW else "CREATE TABLE AS"
    return Statement(
        Kind.DDL, tag, tables=inner.tables, levels=inner.levels, inner=inner, part=part, temporary=temporary,
        drops_on_commit=node.into.onCommit == enums.OnCommitAction.ONCOMMIT_DROP,
        effects=Effects.TEMP_TABLE if temporary else Effects.NONE, functions=inner.functions, is_marked=is_marked,
        name=node.into.rel.relname, parameters=inner.parameters,
    )  # fmt: skip


def _simple(node: Any, kind: Kind, tag: str, part: int, is_marked: bool) -> Statement:
    relations = list(getattr(node, "relations", None) or ())
    for entry in getattr(node, "rels", None) or ():
        if entry.relation is not None:
            relations += [entry.relation]
    tables = tuple(Reference(i, 0, r.schemaname, r.relname, "", False, True) for i, r in enumerate(relations))
    transactional = True
    if kind == Kind.VACUUM:
        tag = "VACUUM" if node.is_vacuumcmd else "ANALYZE"
        transactional = not node.is_vacuumcmd
    elif kind == Kind.DISCARD:
        transactional = node.target != enums.DiscardMode.DISCARD_ALL
        tag = "DISCARD " + node.target.name.rpartition("_")[2]
    name = getattr(node, "name", None) or getattr(node, "portalname", None) or getattr(node, "conditionname", None)
    functions: tuple[tuple[str | None, str], ...] = ()
    if kind == Kind.CALL:
        functions = tuple(_Walk(node.funccall).functions)
    return Statement(
        kind, tag, tables=tables, read_only=kind == Kind.SHOW, effects=_EFFECTS.get(kind, Effects.NONE),
        transactional=transactional, name=name, part=part, functions=functions, is_marked=is_marked,
        set_names=(name.lower(),) if kind == Kind.SHOW and name else (),
    )  # fmt: skip


def _ddl(node: Any, part: int, is_marked: bool) -> Statement:
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(node).__name__.removesuffix("Stmt")).upper()
    tag = {"INDEX": "CREATE INDEX", "VIEW": "CREATE VIEW", "CREATE": "CREATE TABLE", "RENAME": "ALTER"}.get(
        words, words
    )
    relation = getattr(node, "relation", None) or getattr(node, "view", None) or getattr(node, "sequence", None)
    tables: tuple[Reference, ...] = ()
    temporary = False
    if isinstance(relation, ast.RangeVar):
        tables = (Reference(0, 0, relation.schemaname, relation.relname or "", "", False, True),)
        creates = isinstance(node, (ast.CreateStmt, ast.ViewStmt, ast.CreateSeqStmt))
        temporary = creates and (relation.relpersistence == "t" or relation.schemaname == "pg_temp")
    concurrent = bool(getattr(node, "concurrent", False)) or _concurrently(node)
    return Statement(
        Kind.DDL,
        tag,
        tables=tables,
        effects=Effects.TEMP_TABLE if temporary else Effects.NONE,
        transactional=not concurrent and not isinstance(node, _CLOSED_TO_BLOCKS),
        temporary=temporary,
        drops_on_commit=getattr(node, "oncommit", None) == enums.OnCommitAction.ONCOMMIT_DROP,
        part=part,
        is_marked=is_marked,
    )


def _concurrently(node: Any) -> bool:
    params = getattr(node, "params", None) or ()
    if any(isinstance(p, ast.DefElem) and p.defname == "concurrently" for p in params):
        return True
    if isinstance(node, ast.ReindexStmt):
        kinds = enums.ReindexObjectType
        return node.kind in (kinds.REINDEX_OBJECT_SYSTEM, kinds.REINDEX_OBJECT_DATABASE)
    for command in getattr(node, "cmds", None) or ():
        if getattr(getattr(command, "def_", None), "concurrent", False):
            return True
    return False


def _is_on(arg: Any) -> bool:
    if arg is None:
        return True
    text = str(getattr(arg, "sval", None) or getattr(arg, "ival", None) or getattr(arg, "boolval", "on")).lower()
    return text not in ("off", "false", "0", "no")
