"""Law 7 over crashes, and what a search goes on to suggest after one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from search.config import Floor
from search.study.failures import LASTING, Failure
from search.study.ledger import MAX_ATTEMPTS, Ledger
from search.study.records import ExhaustedError, Observation, Proposal, RejectedError
from search.study.samplers import OBSERVATION_LIMITS, build_samplers
from search.study.storage import mend_journal, open_storage
from spaces import SPACES, Space, Trial
from tests.helpers.ledgers import COST, LOW, PLANTED, known, new_ledger, release, scattered, story
from tests.helpers.points import OBJECTIVES

SPACE = SPACES["smoke"]
LOST = Failure(kind="worker-died", reason="planted")


# Crashes


def crashed(journal: Path, content: bytes) -> Ledger:
    """The ledger that continues with this content of a journal."""
    journal.write_bytes(content)
    mend_journal(journal)
    return new_ledger(storage=open_storage(None, journal), is_new=False)


def test_after_a_crash_anywhere_a_call_has_taken_place_or_has_not(tmp_path: Path) -> None:
    """Law 7: the journal is cut after every line and within every one."""
    journal = tmp_path / "study.journal"
    states, ends = [], []
    for ledger in story(new_ledger(storage=open_storage(None, journal))):
        states.append(known(ledger))
        ends.append(journal.stat().st_size)
    content = journal.read_bytes()
    lines = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    cuts = [cut for end in lines for cut in (end, end + 7) if ends[0] <= cut <= len(content)]
    assert len(cuts) > 50
    for cut in cuts:
        resumed = crashed(journal, content[:cut])
        goes_on = [proposal.trial for proposal in resumed.resume()]
        n_whole = sum(end <= cut for end in ends)
        found = known(resumed)
        assert found in states[n_whole - 1 : n_whole + 1]
        running = resumed.study.get_trials(states=[TrialState.RUNNING])
        assert [t.user_attrs["trial"] for t in running] == goes_on == found["unfinished"]
        assert not resumed.study.get_trials(states=[TrialState.WAITING])


def test_what_was_mended_once_is_whole(tmp_path: Path) -> None:
    """A second `resume` finds what the first one left: nothing is added twice."""
    journal = tmp_path / "study.journal"
    for _ in story(new_ledger(storage=open_storage(None, journal))):
        pass
    content = journal.read_bytes()
    cut = content.rindex(b"\n", 0, -1) + 1
    once = crashed(journal, content[:cut])
    once.resume()
    again = new_ledger(storage=open_storage(None, journal), is_new=False)
    n_trials = len(again.study.get_trials())
    again.resume()
    assert len(again.study.get_trials()) == n_trials
    assert known(again) == known(once)


def test_a_paused_trial_waits_and_continues(tmp_path: Path) -> None:
    def database() -> BaseStorage:
        return open_storage(f"sqlite:///{tmp_path}/study.db", tmp_path / "none")

    first = new_ledger(storage=database())
    paused, running = (first.ask(SPACE, short()) for _ in range(2))
    first.pause(paused.trial)
    states = [trial.state for trial in first.study.get_trials()]
    assert states == [TrialState.WAITING, TrialState.RUNNING]
    assert first.results.counts().unfinished == 2
    again = new_ledger(storage=database(), is_new=False)
    assert again.resume() == [paused, running]
    assert {trial.state for trial in again.study.get_trials()} == {TrialState.RUNNING}
    again.tell_failed(paused.trial, PLANTED)
    assert again.results.counts().failed == 1


def test_a_trial_that_cannot_continue_is_closed_with_a_reason() -> None:
    """Its configuration was written by a version with other fields."""
    ledger = new_ledger()
    trial = ledger.ask(SPACE, short()).trial
    changed = {**ledger.study.get_trials()[0].user_attrs["config"], "epochs": "many"}
    ledger.storage.set_trial_user_attr(ledger.results.trial(trial)._trial_id, "config", changed)
    assert ledger.resume() == []
    (failure,) = ledger.results.failures().values()
    assert failure.kind == "orphan"
    assert "epochs" in failure.reason


# Suggestions


def suggestions(
    sampler: str,
    n_trials: int,
    *,
    is_interrupted: bool,
    space: Space = SPACES["full"],
    n_running: int = 3,
    n_earlier: int = 0,
    floors: tuple[Floor, ...] = (),
) -> list[dict[str, Any]]:
    """The suggestions of a search whose trials end in all ways; reopened after each, or not."""
    storage, source, running = InMemoryStorage(), np.random.default_rng(1), []

    def opened(*, is_new: bool) -> Ledger:
        built = build_samplers(sampler, seed=0, n_startup=3)
        return Ledger(storage, OBJECTIVES, sampler_of=built, floors=floors, is_new=is_new)

    ledger, found = opened(is_new=True), []
    for i in range(n_earlier):
        params = {"natural": i / n_earlier, "robust": 1 - i / n_earlier}
        seen = Observation(params=earlier(i, space), accuracies=params, origin="elsewhere")
        ledger.observe(seen, space, short())
    for _ in range(n_trials):
        if is_interrupted:
            ledger = opened(is_new=False)
            ledger.resume()
        while len(running) < n_running:
            running.append(ledger.ask(space, short()))
            found.append(dict(running[-1].params))
        end(ledger, running.pop(int(source.integers(len(running)))), source)
    return found


def earlier(number: int, space: Space) -> dict[str, Any]:
    proposal = Ledger(
        InMemoryStorage(), OBJECTIVES, sampler_of=build_samplers("random", seed=number, n_startup=1)
    ).ask(space, short())
    return dict(proposal.params)


def end(ledger: Ledger, proposal: Proposal, source: np.random.Generator) -> None:
    """One trial in five is stopped, one fails for good, and one is lost with its worker."""
    way = int(source.integers(5))
    if way == 0:
        ledger.tell_stopped(proposal.trial, 3, COST, LOW)
    elif way == 1:
        ledger.tell_failed(proposal.trial, PLANTED, COST)
    elif way == 2:
        ledger.tell_failed(proposal.trial, LOST, COST)
    else:
        ledger.tell_released(proposal.trial, scattered(proposal, source), COST)


INTERRUPTED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "random": ("random", 12, {}),
    "tpe": ("tpe", 16, {}),
    "tpe, few parameters": ("tpe", 16, {"space": SPACES["smoke"]}),
    "tpe above floors": ("tpe", 16, {"floors": (Floor(objective="natural", accuracy=0.4),)}),
    "gp": ("gp", 3, {"space": SPACES["smoke"], "n_running": 2}),
    "nsga2": ("nsga2", 16, {}),
    "nsga3": ("nsga3", 8, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "n_trials", "others"), INTERRUPTED.values(), ids=INTERRUPTED)
def test_interruptions_do_not_change_what_is_suggested(
    sampler: str, n_trials: int, others: dict[str, Any]
) -> None:
    whole = suggestions(sampler, n_trials, is_interrupted=False, **others)
    assert suggestions(sampler, n_trials, is_interrupted=True, **others) == whole
    assert len({str(params) for params in whole}) == len(whole)


@pytest.mark.parametrize("n_earlier", [0, 60])
def test_interruptions_do_not_change_suggestions_where_observations_are_thinned(
    n_earlier: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OBSERVATION_LIMITS, TPESampler, 15)
    whole, parts = (
        suggestions("tpe", 16, is_interrupted=cut, space=SPACES["smoke"], n_earlier=n_earlier)
        for cut in (False, True)
    )
    assert parts == whole


def test_interruptions_do_not_change_suggestions_over_generations() -> None:
    """NSGA-II has 50 trials per generation, and keeps the parents of each in its study."""
    ledger, source, running = new_ledger("nsga2"), np.random.default_rng(1), []
    for _ in range(106):
        while len(running) < 3:
            running.append(ledger.ask(two_rates, short()))
        proposal = running.pop(int(source.integers(len(running))))
        ledger.tell_released(proposal.trial, scattered(proposal, source), COST)
    records = ledger.results.records()
    for number in (20, 54, 70, 104, 107):
        seen = records[number]
        assert ledger.before(seen.trial).ask(two_rates, short()).params == seen.params


def two_rates(trial: Trial, base: TrainConfig) -> TrainConfig:
    for name in ("natural", "robust"):
        lr = trial.suggest_float(f"experts.{name}.optimizer.lr", 0.01, 1.0)
        base = replace_at(base, f"experts.{name}.optimizer.lr", lr)
    return base


# Failing configurations


def batch_sizes(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Three configurations."""
    size = trial.suggest_categorical("batch_size", ["16", "32", "64"])
    return replace_at(base, "batch_size", int(size))


def size_of(proposal: Proposal) -> int:
    return proposal.config.batch_size


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("is_reopened", [False, True])
def test_what_failed_for_good_is_not_proposed_again(kind: Any, is_reopened: bool) -> None:
    storage = InMemoryStorage()
    ledger, failed = new_ledger(storage=storage), set()
    for _ in range(2):
        proposal = ledger.ask(batch_sizes, short())
        ledger.tell_failed(proposal.trial, Failure(kind=kind, reason="planted"))
        failed.add(size_of(proposal))
        if is_reopened:
            ledger = new_ledger(storage=storage, is_new=False)
            ledger.resume()
    assert len(failed) == 2
    assert {size_of(ledger.ask(batch_sizes, short()))} == {16, 32, 64} - failed


@pytest.mark.parametrize("end", ["released", "stopped", "running"])
@pytest.mark.parametrize("is_reopened", [False, True])
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "gp"])
def test_what_was_trained_is_not_proposed_again(end: str, is_reopened: bool, sampler: str) -> None:
    storage = InMemoryStorage()
    ledger, sizes = new_ledger(sampler, storage), []
    for _ in range(3):
        proposal = ledger.ask(batch_sizes, short())
        sizes.append(size_of(proposal))
        if end == "released":
            trained = dataclasses.replace(proposal.config, n_accumulations=2)
            ledger.tell_released(proposal.trial, release(proposal), COST, trained=trained)
        elif end == "stopped":
            ledger.tell_stopped(proposal.trial, 3, COST, LOW)
        if is_reopened:
            ledger = new_ledger(sampler, storage, is_new=False)
            ledger.resume()
    assert sorted(sizes) == [16, 32, 64]
    with pytest.raises(ExhaustedError, match="all 3 configurations of the space were tried"):
        ledger.ask(batch_sizes, short())
    assert ledger.results.n_asked == 3


def test_a_choice_that_leaves_nothing_to_search_is_not_taken_again() -> None:
    """TPE sees one configuration as the best; a random suggestion then finds another."""

    def one_or_any(trial: Trial, base: TrainConfig) -> TrainConfig:
        if trial.suggest_categorical("way", ["one", "any"]) == "one":
            return base
        return replace_at(base, "mixing.decay", trial.suggest_float("mixing.decay", 0.1, 0.9))

    ledger = new_ledger("tpe")
    for _ in range(20):
        proposal = ledger.ask(one_or_any, short())
        is_one = proposal.params["way"] == "one"
        if is_one:
            ledger.tell_released(proposal.trial, release(proposal), COST)
        else:
            ledger.tell_stopped(proposal.trial, 1, COST, LOW)
    assert [proposal.params["way"] for proposal in ledger.results.proposals()].count("one") == 1


def test_what_is_enqueued_belongs_to_one_trial() -> None:
    """A second suggestion of it is left out, and does not push the third one to the next trial."""
    ledger = new_ledger()
    for size in (32, 32, 64):
        ledger.enqueue({"batch_size": str(size)}, 0.5, 2)
    sizes = [size_of(ledger.ask(batch_sizes, short())) for _ in range(2)]
    assert sizes in ([32, 16], [32, 64])
    assert [given["batch_size"] for given in ledger.sampling.enqueued] == ["64"]


def test_what_was_lost_with_its_worker_is_proposed_once_more() -> None:
    """So a configuration that kills every worker does not go on for ever, also after a resume."""
    ledger, sizes = new_ledger(), []
    for _ in range(6):
        proposal = ledger.ask(batch_sizes, short())
        ledger.tell_failed(proposal.trial, LOST)
        sizes.append(size_of(proposal))
        ledger.resume()
    assert sorted(sizes) == [16, 16, 32, 32, 64, 64]
    with pytest.raises(ExhaustedError, match="all 3 configurations"):
        ledger.ask(batch_sizes, short())


def test_where_all_has_failed_nothing_is_left() -> None:
    ledger = new_ledger()
    for _ in range(3):
        ledger.tell_failed(ledger.ask(batch_sizes, short()).trial, PLANTED)
    with pytest.raises(ExhaustedError, match="all 3 configurations"):
        ledger.ask(batch_sizes, short())
    assert ledger.results.failure_kinds() == {"error": 3}
    assert [proposal.trial for proposal in ledger.results.proposals()] == ["0000", "0001", "0002"]


def test_where_a_space_has_no_end_the_sampler_gives_up() -> None:
    """It asks for a number, and does not use it."""
    n_asked = 0

    def counted(trial: Trial, base: TrainConfig) -> TrainConfig:
        nonlocal n_asked
        n_asked += 1
        trial.suggest_float("unused", 0.0, 1.0)
        return base

    ledger = new_ledger()
    ledger.ask(counted, short())
    with pytest.raises(RejectedError, match="keeps suggesting what was tried before"):
        ledger.ask(counted, short())
    assert n_asked == 1 + MAX_ATTEMPTS + 1
    assert ledger.results.failure_kinds() == {"invalid": 1}
