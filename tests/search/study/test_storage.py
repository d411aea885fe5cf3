"""The storage of a study: damaged journals are refused, and those that a crash left are mended."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.storages import JournalStorage

from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.errors import SweepFolderError
from search.study.storage import (
    absolute_url,
    masked,
    mend_journal,
    open_storage,
    place_of,
    require_writable,
)
from spaces import SPACES
from tests.helpers.ledgers import COST, new_ledger, release


@pytest.mark.parametrize("line", ["{", "[]", "{}", "\xff\xfe"])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    ledger = new_ledger(storage=open_storage(None, journal))
    proposal = ledger.ask(SPACES["smoke"], short())
    ledger.tell_released(proposal.trial, release(proposal), COST)
    lines = journal.read_bytes().split(b"\n")
    lines[4] = line.encode("latin-1")
    journal.write_bytes(b"\n".join(lines))
    with pytest.raises(SweepFolderError, match="its line 5 is damaged"):
        open_storage(None, journal)


def test_mending_removes_the_lock_and_nothing_else(tmp_path: Path) -> None:
    journal, lock = tmp_path / "study.journal", tmp_path / "study.journal.lock"
    mend_journal(journal)
    assert not journal.exists()
    journal.write_bytes(b'{"op_code": 1}\n')
    lock.symlink_to(journal)
    mend_journal(journal)
    assert journal.read_bytes() == b'{"op_code": 1}\n'
    assert list(tmp_path.iterdir()) == [journal]
    assert isinstance(open_storage(None, tmp_path / "new"), JournalStorage)


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/where/a.db"])
def test_a_url_without_a_storage_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=f"must be an Optuna URL .*but got '{url}'"):
        open_storage(url, tmp_path / "study.journal")


def test_a_database_that_can_only_be_read_is_refused_and_another_is_left_as_it_was(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    require_writable(url)
    assert open_storage(url, tmp_path).get_all_studies() == []
    readonly = f"sqlite:///file:{tmp_path}/a.db?mode=ro&uri=true"
    with pytest.raises(InvalidConfigError, match=r"can be written, but got .* readonly database"):
        require_writable(readonly)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/studies",
        "postgresql://me:secret@host:port/studies",
        "mysql+pymysql://me:secret%2F@secret/secret@host:1/studies",
        "postgresql://:secret@host",
        "redis://:secret@host",
        "nonsense://me:secret@host",
        "postgresql://me@host/studies?password=secret&sslmode=secret-less",
    ],
)
def test_no_message_has_the_password(url: str, tmp_path: Path) -> None:
    shown = place_of(url, tmp_path)
    assert "secret" not in shown.replace("secret-less", "")
    assert "***" in shown
    assert "host" in shown
    with pytest.raises(InvalidConfigError) as error:
        require_writable(url)
    assert shown in str(error.value)
    assert "secret" not in str(error.value).replace("secret-less", "")


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////a:b@c.db", "postgresql://me@host:1/a"])
def test_a_url_without_a_password_is_shown_whole(url: str) -> None:
    assert masked(url) == url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///study.db", "sqlite:///{here}/study.db"),
        ("sqlite:///./a/study.db?timeout=5", "sqlite:///{here}/a/study.db?timeout=5"),
        ("sqlite+pysqlite:///my study.db", "sqlite+pysqlite:///{here}/my study.db"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://me:secret@host/studies", "postgresql://me:secret@host/studies"),
        ("redis://localhost:6379", "redis://localhost:6379"),
        ("nonsense", "nonsense"),
    ],
)
def test_the_path_of_a_file_of_sqlite_becomes_absolute(
    url: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_url(url) == expected.format(here=tmp_path)


def test_a_record_that_optuna_cannot_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.journal").write_text('{"op_code": 99}\n')
    with pytest.raises(SweepFolderError, match="holds an invalid record"):
        open_storage(None, tmp_path / "study.journal")
