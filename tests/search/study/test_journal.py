"""The sealed journal: any damage is found, or is that of an earlier state, or changes nothing."""

from __future__ import annotations

import json
import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.errors import SweepFolderError
from search.study.journal import SealedJournal
from search.study.storage import open_storage
from spaces import SPACES
from tests.helpers.ledgers import COST, known, new_ledger, release, story

State = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[State]]:
    """The journal of a short search, and the states of the study after each record."""
    journal = tmp_path_factory.mktemp("whole") / "study.journal"
    for _ in story(new_ledger(storage=open_storage(None, journal))):
        pass
    content = journal.read_bytes()
    lines = content.splitlines(keepends=True)
    parts = [b"".join(lines[:end]) for end in range(1, len(lines) + 1)]
    return content, [state for part in parts if (state := found(part, journal)) is not None]


def found(content: bytes, journal: Path) -> State | None:
    """What a ledger finds in a journal; None if it is refused."""
    journal.write_bytes(content)
    try:
        return known(new_ledger(storage=open_storage(None, journal), is_new=False))
    except SweepFolderError as error:
        assert "study.journal must be as it was written, but its line" in str(error)  # noqa: PT017
    except InvalidConfigError as error:
        assert "of sweep.json must be in" in str(error)  # noqa: PT017
        assert content.count(b"\n") == 0
    return None


def test_a_changed_bit_is_found_wherever_it_is(
    whole: tuple[bytes, list[State]], tmp_path: Path
) -> None:
    """Except in the word `checksum` of the last record, which then is one of another program."""
    content, states = whole
    of_the_end = range(8 * (len(content) - 60), 8 * len(content))
    bits = sorted({*range(0, 8 * len(content), 1009), *of_the_end})
    accepted = []
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        state = found(bytes(changed), tmp_path / "study.journal")
        if state is not None:
            assert state == states[-1]
            accepted.append(bit // 8)
    word = content.rindex(b"checksum")
    assert set(accepted) <= set(range(word, word + len("checksum")))


def test_records_that_are_doubled_removed_or_swapped_are_found(
    whole: tuple[bytes, list[State]], tmp_path: Path
) -> None:
    content, states = whole
    lines, journal = content.splitlines(keepends=True), tmp_path / "study.journal"
    last = len(lines) - 1
    for i in range(len(lines)):
        assert found(b"".join([*lines[: i + 1], *lines[i:]]), journal) is None
        removed = found(b"".join([*lines[:i], *lines[i + 1 :]]), journal)
        assert removed == (states[-2] if i == last else None)
        if i < last:
            swapped = [*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :]]
            assert found(b"".join(swapped), journal) is None


def test_a_journal_that_is_cut_anywhere_is_an_earlier_state(
    whole: tuple[bytes, list[State]], tmp_path: Path
) -> None:
    content, states = whole
    first = content.index(b"\n") + 1
    for cut in [*range(0, len(content), 211), *range(len(content) - 30, len(content))]:
        state = found(content[:cut], tmp_path / "study.journal")
        n_records = content[:cut].count(b"\n")
        assert state == (states[n_records - 1] if cut >= first else None)


def test_the_error_names_the_line_and_what_can_be_kept(
    whole: tuple[bytes, list[State]], tmp_path: Path
) -> None:
    content, states = whole
    lines, journal = content.splitlines(keepends=True), tmp_path / "study.journal"
    journal.write_bytes(b"".join([*lines[:7], *lines[6:]]))
    message = (
        "its line 8 is damaged.*remove line 8 and all lines after it: those before it are whole"
    )
    with pytest.raises(SweepFolderError, match=message):
        open_storage(None, journal)
    assert found(b"".join(lines[:7]), journal) == states[6]
    journal.write_bytes(b"[]\n")
    with pytest.raises(SweepFolderError, match=r"line 1 is damaged.*from a copy\.$"):
        open_storage(None, journal)


def test_optuna_reads_the_file_and_its_records_are_sealed_by_the_next(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    ledger = new_ledger(storage=open_storage(None, journal))
    proposal = ledger.ask(SPACES["smoke"], short())
    other = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name=ledger.study.study_name, storage=other)
    study.set_user_attr("note", "of another program")
    ledger.tell_released(proposal.trial, release(proposal), COST)
    assert [t.state for t in study.get_trials()] == [t.state for t in ledger.study.get_trials()]
    again = new_ledger(storage=open_storage(None, journal), is_new=False)
    assert again.study.user_attrs["note"] == "of another program"
    journal.write_bytes(journal.read_bytes().replace(b"another program", b"another person."))
    with pytest.raises(SweepFolderError, match="is damaged"):
        open_storage(None, journal)


def test_a_write_that_was_cut_off_is_replaced_by_the_next(tmp_path: Path) -> None:
    """A disk was full for a moment: the same process goes on to write."""
    journal = SealedJournal(tmp_path / "study.journal")
    journal.append_logs([{"op_code": 1}, {"op_code": 2}])
    size, (_, most) = journal.path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300, most))
    try:
        with pytest.raises(OSError, match="large"):
            journal.append_logs([{"op_code": 3, "text": "x" * 500}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert journal.path.stat().st_size == size + 300
    journal.append_logs([{"op_code": 4}])
    assert journal.path.read_bytes().endswith(b"}\n")
    records = SealedJournal(journal.path).read_logs(0)
    assert [record["op_code"] for record in records] == [1, 2, 4]


def test_records_are_read_from_any_number_on(tmp_path: Path) -> None:
    journal, other = (SealedJournal(tmp_path / "study.journal") for _ in range(2))
    journal.append_logs([{"op_code": i} for i in range(3)])
    other.append_logs([{"op_code": 3}])
    for first in (0, 2, 4, 1, 4):
        assert [record["op_code"] for record in journal.read_logs(first)] == list(range(first, 4))
    assert not journal.path.with_name("study.journal.lock").is_symlink()


def test_a_journal_that_shrinks_in_use_is_refused(tmp_path: Path) -> None:
    journal = SealedJournal(tmp_path / "study.journal")
    journal.append_logs([{"op_code": 1}])
    journal.read_logs(0)
    journal.path.write_bytes(b"")
    use: list[Callable[[], object]] = [
        lambda: journal.read_logs(1),
        lambda: journal.append_logs([{"op_code": 2}]),
    ]
    for call in use:
        with pytest.raises(SweepFolderError, match="must only grow"):
            call()


def write_many(path: Path, name: str) -> None:
    journal = SealedJournal(path)
    for number in range(50):
        journal.append_logs([{"op_code": number, "name": name, "text": "x" * 5000}])


def test_a_reader_beside_writers_sees_whole_records_in_order(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    reader, records = SealedJournal(path), list[dict[str, Any]]()
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        records += reader.read_logs(len(records))
    records += reader.read_logs(len(records))
    assert all(writer.exitcode == 0 for writer in writers)
    for name in "ab":
        assert [r["op_code"] for r in records if r["name"] == name] == list(range(50))
    assert [json.loads(line) for line in path.read_text().splitlines()] == records
