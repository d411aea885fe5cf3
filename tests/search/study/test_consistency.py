"""Law 7, of the study in any storage: each trial is there once, and complete if it has ended."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from search.errors import SweepFolderError
from search.study.ledger import Ledger
from search.study.storage import open_storage
from tests.helpers.ledgers import known, new_ledger, story


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a short search."""
    file = tmp_path_factory.mktemp("whole") / "study.db"
    for _ in story(new_ledger(storage=open_storage(f"sqlite:///{file}", file))):
        pass
    return file


@pytest.fixture
def file(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "study.db"))


def opened(file: Path) -> Ledger:
    return new_ledger(storage=open_storage(f"sqlite:///{file}", file), is_new=False)


def test_what_a_ledger_wrote_is_accepted(file: Path) -> None:
    ledger = opened(file)
    running = ledger.study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])
    assert [trial.user_attrs["trial"] for trial in running] == known(ledger)["unfinished"]


DAMAGES = {
    "a trial twice": (
        "UPDATE trial_user_attributes SET value_json = '\"0001\"'"
        " WHERE key = 'trial' AND value_json = '\"0002\"'",
        r"each trial once, but its trials \d+ and \d+ are both trial 0001",
    ),
    "two ends in one place": (
        "UPDATE trial_user_attributes SET value_json = '0' WHERE key = 'told_as'",
        "are both number 0 to end",
    ),
    "a point twice": (
        "UPDATE trial_user_attributes SET value_json = '0.5' WHERE key = 'mixing_ratio'",
        r"are both point \d+-0\.5",
    ),
    "a sibling without its trial": (
        "UPDATE trial_user_attributes SET value_json = '\"0077\"' WHERE key = 'trial' AND trial_id"
        " IN (SELECT trial_id FROM trial_user_attributes WHERE key = 'sibling')",
        "trial 0077 of trial .* is not there",
    ),
    **{
        f"no {key}": (
            f"DELETE FROM trial_user_attributes WHERE key = '{key}'",
            f"no valid (.*, )?{key}",
        )
        for key in ("asked_after", "told_as", "cost", "points", "stopped_at", "failure", "n_images")
    },
    "a number that is a text": (
        "UPDATE trial_user_attributes SET value_json = '\"1\"' WHERE key = 'told_as'",
        "no valid told_as",
    ),
}


@pytest.mark.parametrize(("statement", "message"), DAMAGES.values(), ids=DAMAGES)
def test_another_study_is_refused(statement: str, message: str, file: Path) -> None:
    with sqlite3.connect(file) as database:
        assert database.execute(statement).rowcount > 0
    database.close()
    with pytest.raises(SweepFolderError, match=f"{message}.* from a copy. It is in memory"):
        opened(file)


def test_a_trial_of_another_program_must_not_end(file: Path) -> None:
    study = opened(file).study
    study.enqueue_trial({"x": 1.0})
    opened(file)
    study.add_trial(create_trial(values=[0.5, 0.5]))
    with pytest.raises(SweepFolderError, match="no valid trial, told_as, mixing_ratio"):
        opened(file)
