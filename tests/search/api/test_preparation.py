"""What a sweep would be, as far as it is known before it begins."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import search
from generalist_core.config import PGD, SGD, EarlierSettings
from generalist_core.models.build import build_model
from generalist_core.models.state import averaged_tensors
from generalist_core.training.cost import evaluation_cost
from generalist_core.validation import InvalidConfigError
from search.api.preparation import rehearse
from search.config import Resources, SweepConfig
from search.errors import SweepFolderError
from search.running.housekeeping import room_needed
from spaces import SPACES
from tests.helpers.problems import with_expert
from tests.helpers.tiny import tiny_config

REQUEST = SweepConfig(
    base=tiny_config(), space="smoke", trials=3, sampler="random", resources=Resources(local=True)
)


def test_a_request_is_rehearsed_and_its_cost_is_known(tmp_path: Path) -> None:
    made = rehearse(REQUEST, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert made.trial_cost is not None
    assert made.cost == 3 * made.trial_cost
    evaluation = replace(REQUEST.base.evaluation, release_ratios=(0.0, 1.0))
    one = REQUEST.base.data.n_validation * evaluation_cost(evaluation)
    for release_global, less in ((True, 0), (False, one)):
        ends = replace(evaluation, release_global=release_global)
        of_ends = replace(REQUEST, base=replace(REQUEST.base, evaluation=ends))
        assert rehearse(of_ends, tmp_path / "out").trial_cost == made.trial_cost - less
    model = build_model(REQUEST.base.model, 10, (1, 8, 8), seed=0)
    weights = sum(tensor.nbytes for tensor in averaged_tensors(model).values())
    assert made.room == room_needed(made.config, SPACES["smoke"], weights)
    assert made.room.text(made.free_bytes) in made.estimates()[2]
    assert json.loads(json.dumps(made.to_dict()))["room"] == asdict(made.room)
    assert made.ranges.keys() | made.choices.keys() == made.values_texts().keys()
    assert list(made.values_texts()) == sorted(made.values_texts())
    assert "logarithmic" in made.values_texts()["experts.natural.optimizer.lr"]
    assert rehearse(replace(REQUEST, budget=7.0), tmp_path / "out").cost == 7.0


@pytest.mark.slow
def test_the_estimate_is_near_the_cost_of_a_trial_that_shares_nothing(tmp_path: Path) -> None:
    alone = replace(REQUEST, shares_warmups=False, early_stopping=None)
    estimated = rehearse(alone, tmp_path / "out").cost
    sweep = search.sweep(alone, tmp_path / "out")
    assert sweep.results.cost()["forward_images"] == pytest.approx(estimated, rel=0.5)


def test_lengths_that_are_searched_have_no_known_cost(tmp_path: Path) -> None:
    made = rehearse(replace(REQUEST, space="lineages"), tmp_path / "out")
    assert made.n_configurations is None
    assert (made.trial_cost, made.cost) == (None, None)
    assert "not known before (lengths are searched)" in made.estimates()[1]


def test_what_a_sweep_refuses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("")
    with pytest.raises(SweepFolderError, match="must be new or empty"):
        rehearse(REQUEST, tmp_path)
    with pytest.raises(InvalidConfigError, match="`space` must be one of"):
        rehearse(replace(REQUEST, space="none"), tmp_path / "out")


def test_trials_begin_with_settings_of_their_own(tmp_path: Path) -> None:
    """A base that a population found has settings of earlier epochs, which are its own."""
    past = EarlierSettings(until=1, attack=PGD(epsilon=0.2, steps=3), optimizer=SGD(lr=0.3))
    base = with_expert(tiny_config(), "robust", earlier=(past,))
    assert rehearse(SweepConfig(base=base), tmp_path / "out").config.base == tiny_config()


def test_a_grid_has_a_size_and_costs_no_more_than_its_configurations(tmp_path: Path) -> None:
    space = tmp_path / "space.py"
    space.write_text(
        "from spaces.protocol import tune_int\n"
        "def steps(trial, base):\n"
        "    return tune_int(trial, base, 'sync.every_epochs', 1, 3)\n"
    )
    request = replace(REQUEST, space=f"{space}:steps", sampler="grid", trials=None, budget=None)
    made = rehearse(request, tmp_path / "out")
    assert made.n_configurations == made.to_dict()["n_configurations"] == 3
    assert made.estimates()[0] == "Grid: 3 configurations"
    assert made.trial_cost is not None
    assert made.cost == 3 * made.trial_cost
    assert made.room.trials == 3
    assert rehearse(replace(request, trials=2), tmp_path / "out").cost == 2 * made.trial_cost
    with pytest.raises(InvalidConfigError, match="the space has the continuous"):
        rehearse(replace(request, space="smoke"), tmp_path / "out")
