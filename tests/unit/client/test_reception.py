"""Accounts and welcomes: made once, right for everybody, and nothing that an outsider can make grow."""

from __future__ import annotations

from typing import Any

import pytest

from node.auth.scram import ScramVerifier
from node.config.schema import Config
from node.reception import Accounts, account, opening
from node.wire.messages import parameter_status

VERIFIER = str(ScramVerifier.derive("secret", b"sixteen bytes...", 1))
KNOWN = {
    "server_version": "16.4",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "application_name": "pgmurmur/node/1",
}


def config(**general: Any) -> Config:
    return Config.model_validate(
        {
            "general": general,
            "admin": {"password": "for admins"},
            "databases": [
                {"name": name, "host": "127.0.0.1", "port": 5432} for name in ("first", "second", "everybody's")
            ],
            "users": [
                {"name": "wren", "password": "one", "database": "first"},
                {"name": "wren", "password": "two", "database": "second"},
                {"name": "robin", "password_hash": VERIFIER, "server_password": "secret", "databases": ["second"]},
                {"name": "crow", "password": "caw", "all_databases": True},
            ],
        }
    )


@pytest.mark.parametrize("user", ["wren", "robin", "crow", "admin", "nobody", ""])
@pytest.mark.parametrize("database", ["first", "second", "everybody's", "admin", "missing", ""])
def test_an_account_looked_up_is_the_account_of_the_configuration(user: str, database: str) -> None:
    in_force = config()
    accounts = Accounts(lambda: in_force)
    for _ in range(2):
        assert accounts.find(user, database) == account(in_force, user, database)


def test_an_account_is_made_once_and_anew_with_the_next_configuration() -> None:
    in_force = config()
    accounts = Accounts(lambda: in_force)
    before = accounts.find("wren", "first")
    assert accounts.find("wren", "first") is before
    in_force = config(auth_type="md5")
    after = accounts.find("wren", "first")
    assert after is not before
    assert after == account(in_force, "wren", "first")


def test_what_outsiders_ask_for_is_not_remembered() -> None:
    in_force = config()
    accounts = Accounts(lambda: in_force)
    for number in range(1_000):
        assert accounts.find(f"nobody {number}", "first") is None
        missing = accounts.find("wren", f"missing {number}")
        assert missing is not None
        assert not missing.database_exists
    assert sum(map(len, accounts._accounts.values())) <= len(in_force.users) * (1 + len(in_force.entries))


def test_a_client_is_told_its_own_settings_where_it_asked_for_some() -> None:
    made = opening({"datestyle": "German, DMY", "timezone": "UTC", "work_mem": "1MB"}, KNOWN)
    assert made.startup == {"datestyle": "German, DMY", "work_mem": "1MB"}
    assert made.tracked == ("datestyle", "work_mem")
    told = KNOWN | {"DateStyle": "German, DMY"}
    del told["application_name"]  # follows, each client has its own
    assert made.statuses == b"".join(parameter_status(name.encode(), value.encode()) for name, value in told.items())


def test_hints_of_the_startup_packet_are_taken_and_its_search_path_is_none() -> None:
    made = opening({"pgdog.role": "replica", "search_path": "shop"}, KNOWN)
    assert made.hints.role == "replica"
    assert made.hints == opening({"pgdog.role": "replica"}, KNOWN).hints
