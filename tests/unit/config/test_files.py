"""Reading the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.config.files import read, with_admin_password
from node.config.limits import LIMITS
from node.config.load import parse
from node.config.problems import ConfigError


def test_own_name_is_tried_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pgdog.toml").write_text("[general]\nport = 1\n")
    assert read(None, None).parse({}).config.general.port == 1
    (tmp_path / "pgmurmur.toml").write_text("[general]\nport = 2\n")
    assert read(None, None).parse({}).config.general.port == 2
    assert read("pgdog.toml", None).parse({}).config.general.port == 1


def test_missing_files_are_defaults_with_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = read(None, None).parse({})
    assert [str(one) for one in loaded.warnings] == [
        "pgdog.toml: file does not exist; defaults are used",
        "users.toml: file does not exist; defaults are used",
    ]


def test_errors_carry_the_path_as_given(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[general]\nprot = 1\n")
    with pytest.raises(ConfigError) as caught:
        read(str(file), str(tmp_path / "none.toml")).parse({})
    assert str(caught.value.problems[0]).startswith(f"{file}:2: ")


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    (tmp_path / "b").write_bytes(b"#" * (LIMITS.document_bytes + 1))
    with pytest.raises(ConfigError) as caught:
        read(str(tmp_path / "a"), str(tmp_path / "b")).parse({})
    assert "not UTF-8" in str(caught.value.problems[0])
    assert "larger than" in str(caught.value.problems[1])
    with pytest.raises(ConfigError) as folder:
        read(str(tmp_path), str(tmp_path / "none")).parse({})
    assert "cannot read file" in str(folder.value.problems[0])


def test_a_file_that_cannot_be_read_does_not_hide_the_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    (tmp_path / "u").write_text('[[users]]\nname = "u"\npasword = "p"\nserver_auth = "rds_iam"\n')
    with pytest.raises(ConfigError) as caught:
        read(str(tmp_path / "a"), str(tmp_path / "u")).parse({})
    assert [str(one).partition(": ")[2].partition(";")[0] for one in caught.value.problems] == [
        "file is not UTF-8",
        'unknown key "pasword" in [[users]]',
    ]


def test_texts_are_in_no_repr(tmp_path: Path) -> None:
    (tmp_path / "u").write_text('[admin]\npassword = "hush"\n')
    assert "hush" not in repr(read(str(tmp_path / "none"), str(tmp_path / "u")))


def test_a_random_admin_password_only_when_there_is_none() -> None:
    config, generated = with_admin_password(parse("", "").config)
    assert generated is not None
    assert generated.startswith("_pgmurmur_")
    assert config.admin.password is not None
    assert config.admin.password.get_secret_value() == generated
    assert with_admin_password(parse("", "").config)[1] != generated
    assert with_admin_password(parse("[admin]\npassword = 'x'", "").config)[1] is None
