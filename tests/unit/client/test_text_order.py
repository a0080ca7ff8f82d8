from __future__ import annotations

import pytest

from node.client.text_order import same_order


@pytest.mark.parametrize(
    ("server", "client", "same"),
    [
        ("UTF8", "UTF8", True),
        ("UTF8", "unicode", True),
        ("UTF8", "utf-8", True),
        ("UTF8", "LATIN1", True),
        ("UTF8", "ISO_8859_1", True),
        ("LATIN1", "UTF8", True),
        ("WIN1251", "win1251", True),
        ("SQL_ASCII", "WIN1251", True),  # nothing is converted
        ("UTF8", "WIN1251", False),
        ("UTF8", "LATIN9", False),  # its euro sign is a byte below others that are earlier code points
        ("WIN1251", "UTF8", False),
        ("EUC_JP", "SJIS", False),
    ],
)
def test_bytes_are_in_one_order_where_they_follow_the_code_points(server: str, client: str, same: bool) -> None:
    assert same_order(server, client) is same
