"""Which proposer a space gets."""

from __future__ import annotations

import pytest

from generalist_core.config import CrossEntropy
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.config import SweepConfig
from search.scheduling.lineages import LineageProposer
from search.scheduling.proposer import SamplingProposer
from search.scheduling.proposers import build_proposer, has_lineages
from spaces import SPACES
from tests.helpers.ledgers import new_ledger
from tests.helpers.problems import tiny_dataset, with_expert

BASE = short()
REQUEST = SweepConfig(base=BASE)


def test_spaces_with_lineages_get_their_proposer_and_others_cost_nothing() -> None:
    def no_data() -> None:
        raise AssertionError

    for name, space in SPACES.items():
        if has_lineages(space, BASE):
            proposer = build_proposer(new_ledger(), space, REQUEST, tiny_dataset)
            assert isinstance(proposer, LineageProposer)
            assert name in ("branches", "lineages")
        else:
            proposer = build_proposer(new_ledger(), space, REQUEST, no_data)  # type: ignore[arg-type]
            assert isinstance(proposer, SamplingProposer)


def test_a_point_costs_its_judging_per_training_image() -> None:
    """On 12 validation images and 20 training images: an image costs 1 + 21."""
    proposer = build_proposer(new_ledger(), SPACES["lineages"], REQUEST, tiny_dataset)
    assert isinstance(proposer, LineageProposer)
    assert proposer.point_cost == pytest.approx(22 * 12 / 20)


def test_without_a_robust_expert_there_are_no_lineages() -> None:
    base = with_expert(BASE, "robust", attack=None, loss=CrossEntropy())
    with pytest.raises(InvalidConfigError, match="must have a robust expert"):
        build_proposer(new_ledger(), SPACES["lineages"], SweepConfig(base=base), tiny_dataset)
