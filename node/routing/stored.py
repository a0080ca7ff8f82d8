"""What a key column makes of the text it is given, before it is hashed or compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from node.routing.catalog import Catalog, CatalogColumn
    from node.routing.shard_map import KeyValue
    from node.routing.topology import ShardedTable

BPCHAR: Final = 1042
NAME: Final = 19
_VARCHAR: Final = 1043
_HEADER: Final = 4  # a length in a type modifier counts these
_NAME_BYTES_MAX: Final = 63


class Stored(NamedTuple):
    """A column's type, as far as it changes values: char(n), varchar(n) and name."""

    type_oid: int = 0
    type_mod: int = -1

    @property
    def changes(self) -> bool:
        """Is there a value that is not kept as it is?"""
        return self.type_oid in (BPCHAR, NAME) or (self.type_oid == _VARCHAR and self.type_mod >= _HEADER)

    @property
    def wider(self) -> Stored:
        """The same for text; of integers nothing is known."""
        return self if self.changes else AS_GIVEN

    def kept(self, value: KeyValue | None) -> KeyValue | None:
        """char(n) without its padding, varchar(n) without blanks beyond its length, name cut. Other text that is too
        long is for the server to reject."""
        if not isinstance(value, bytes) or not self.changes:
            return value
        if self.type_oid == BPCHAR:
            return value.rstrip(b" ")
        if self.type_oid == NAME:
            return value[:_NAME_BYTES_MAX].decode("utf-8", "ignore").encode() if len(value) > _NAME_BYTES_MAX else value
        text = value.decode("utf-8", "replace")
        size = self.type_mod - _HEADER
        if len(text) > size and not text[size:].strip(" "):
            return text[:size].encode()
        return value

    def compared(self, value: bytes) -> bytes:
        """The key that is equal to this string, if any is: `=` takes it as a char(n), a name or plain text."""
        kept = self.kept(value) if self.type_oid in (BPCHAR, NAME) else value
        return kept if isinstance(kept, bytes) else value


AS_GIVEN: Final = Stored()


def stored(column: CatalogColumn | None) -> Stored:
    return AS_GIVEN if column is None else Stored(column.type_oid, column.type_mod)


def stored_key(catalog: Catalog, schema: str | None, name: str, rule: ShardedTable) -> Stored:
    """What the key column of this table makes of its values, as far as the catalog knows it."""
    table = catalog.table(schema, name)
    return stored(table.column(rule.column) if table is not None else None)
