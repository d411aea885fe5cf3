"""A trial's story holds what the study and the folder tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from generalist_core.validation import InvalidConfigError
from search.api.explain import explain
from search.cli.main import main
from search.files import write_sealed_json
from search.running.trial import TrialRun
from search.running.warmups import WarmupStore
from search.study.failures import Failure
from search.study.folder import Sweep, open_sweep
from spaces import SPACES, base_suggestion, paper_suggestion
from tests.helpers.small_sweep import copy_of
from tests.helpers.tiny import tiny_config


@pytest.fixture(scope="module")
def told(two_trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Two completed trials, then one that was stopped, one diverged, one hung, one unfinished."""
    config, space = tiny_config(), SPACES["smoke"]
    sweep = copy_of(two_trials, tmp_path_factory.mktemp("explain") / "sweep")
    ledger, trials = sweep.ledger, sweep.folder / "trials"
    for suggest in (paper_suggestion, base_suggestion):
        ledger.enqueue(*suggest(space, config), 2)
    stopped, diverged, hung, unfinished = (ledger.ask(space, config) for _ in range(4))
    for proposal in (stopped, unfinished):
        store = WarmupStore(sweep.folder / "warmups", owner=proposal.trial)
        TrialRun(trials / proposal.trial, proposal.config, warmups=store).advance()
    ledger.tell_stopped(stopped.trial, 1, {"forward_images": 1e4, "seconds": 2}, {"natural": 0.5})
    failure = Failure(kind="diverged", reason="DivergedError: Expert 'robust' diverged")
    ledger.tell_failed(diverged.trial, failure)
    ledger.tell_failed(hung.trial, Failure(kind="hang", reason="no end of an epoch in 9 s"))
    for proposal in (diverged, hung):
        (trials / proposal.trial).mkdir()
    trace = "\n".join(f"line {number}" for number in range(20))
    write_sealed_json(trials / diverged.trial / "failure.json", {"traceback": trace})
    (trials / hung.trial / "hang.txt").write_text('Thread 1:\n  File "loader.py", line 7\n')
    return open_sweep(sweep.folder)


STORIES = {
    0: [
        "Trial 0000: completed",
        "Suggested by the sampler (random) when 0 trials had ended.",
        "It differs from the sweep's base configuration in\n  experts.natural.optimizer.lr  0.1",
        "  robust   epochs 1-2 trained here\n  in float32 on device cpu",
        "Rungs: once a rung holds 3 results, the best 1/3 continue",
        "Released after epoch 2, measured on 50 validation images",
        "% of the sweep's",
    ],
    2: [
        "Trial 0002: stopped early after 1 epoch of 2.",
        "Tried first, not suggested by the sampler.",
        "expert robust",
        "1 of 3  stopped here",
        "1e+04 forward images",
    ],
    3: [
        "Trial 0003: failed, diverged.",
        "Tried first, not suggested by the sampler.\nNo parameter differs",
        "Reason: DivergedError: Expert 'robust' diverged\n  line 14\n",
        "trials/0003/failure.json",
    ],
    4: ["Trial 0004: failed, hang.", 'innermost call first:\n  Thread 1:\n    File "loader.py"'],
    5: [
        "Trial 0005: unfinished, 1 epoch of 2 trained; it is running, or waits for",
        "when 2 trials had ended",
        "  robust   epoch 1 adopted from a stored warm-up",
    ],
}


@pytest.mark.parametrize("trial", STORIES)
def test_the_story_of_a_trial(trial: int, told: Sweep) -> None:
    story = explain(told, trial)
    for part in STORIES[trial]:
        assert part in story, story
    assert all(len(line) < 120 for line in story.splitlines() if str(told.folder) not in line)


def test_the_length_of_a_trial_is_that_of_its_own_configuration(
    two_trials: Sweep, tmp_path: Path
) -> None:
    sweep = copy_of(two_trials, tmp_path / "sweep")
    longer = replace(tiny_config(), epochs=5)
    sweep.ledger.ask(lambda trial, _: SPACES["smoke"](trial, longer), tiny_config())
    assert "unfinished, 0 epochs of 5 trained" in explain(sweep, "0002")


def test_every_released_point_is_on_the_front_or_beaten(told: Sweep) -> None:
    names = {point.name for point in told.front.points}
    for trial in ("0000", "0001"):
        own = [point for point in told.ledger.results.points() if point.trial == trial]
        story = explain(told, trial)
        assert story.count("on the front") == sum(point.name in names for point in own)
        assert story.count("no better than") == sum(point.name not in names for point in own)


def test_an_unknown_trial_is_named_with_the_known_ones(told: Sweep) -> None:
    with pytest.raises(InvalidConfigError, match=r"'77'.*0000 to 0005"):
        explain(told, "77")


def test_the_command_line_tells_it_too(
    told: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(told.folder), "2"]) == 0
    assert capsys.readouterr().out == explain(told, "0002") + "\n"
    assert main(["explain", str(told.folder), "x"]) == 2
