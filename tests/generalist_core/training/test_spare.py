"""A trial begins in the trainer of the one before it, if that replays what it recorded."""

from __future__ import annotations

import pytest

from generalist_core.training.spare import SpareTrainer
from generalist_core.training.trainer import GeneralistTrainer
from tests.helpers.problems import start, two_experts


@pytest.fixture
def replaying(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where steps are replays by the end of a trial."""
    monkeypatch.setattr(GeneralistTrainer, "replays", property(lambda _: True))


def test_what_is_not_replayed_is_not_kept() -> None:
    spare = SpareTrainer()
    spare.keep(start(two_experts()))
    assert spare.take(two_experts()) is None


@pytest.mark.usefixtures("replaying")
def test_a_trainer_is_taken_once_by_a_run_that_fits() -> None:
    spare, trainer = SpareTrainer(), start(two_experts())
    spare.keep(trainer)
    assert spare.take(two_experts(seed=1)) is trainer
    assert spare.take(two_experts(seed=1)) is None
    spare.keep(trainer)
    assert spare.take(two_experts(batch_size=4)) is None
    assert spare.take(two_experts()) is None, "its memory is free"
    spare.keep(trainer)
    spare.drop()
    assert spare.take(two_experts()) is None
