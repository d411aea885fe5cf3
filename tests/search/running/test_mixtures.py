"""Mixtures of the front are made from averages, and written as weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from generalist_core.config.mixing import GLOBAL
from generalist_core.models.state import state_of
from generalist_core.training.averaging import load_weights, named, weights_of
from search.api.saved_models import load_model
from search.files import load_sealed, load_tensors, save_sealed
from search.folders import SweepFolder
from search.running.mixtures import mixed_state, point_state
from tests.helpers.problems import two_experts
from tests.helpers.tiny import begin, finish


def test_any_mixture_can_be_made_again_from_the_averages(tmp_path: Path) -> None:
    trial = finish(begin(tmp_path / "0000"))
    mixed = mixed_state(load_tensors(trial.files.averages), 0.37)
    expected = trial.trainer.mixture(0.37)
    assert all(torch.equal(a, b) for a, b in zip(mixed.values(), expected, strict=True))


def test_the_global_learner_is_kept_beside_the_averages(tmp_path: Path) -> None:
    files = SweepFolder(tmp_path)
    trial = finish(begin(files.trial("0000").root))
    state = point_state(files, "0000", GLOBAL)
    expected = trial.trainer.global_learner
    assert all(torch.equal(a, b) for a, b in zip(state.values(), expected, strict=True))
    half = point_state(files, "0000", 0.5)
    assert not all(torch.equal(a, b) for a, b in zip(state.values(), half.values(), strict=True))


def test_an_expert_without_weight_need_not_be_there(tmp_path: Path) -> None:
    """A trial that releases one expert alone keeps only that one's average."""
    config = two_experts()
    evaluation = replace(config.evaluation, release_ratios=(1.0,), n_refinements=0)
    trial = finish(begin(tmp_path / "0000", config=replace(config, evaluation=evaluation)))
    averages = load_sealed(trial.files.averages, "0000")
    assert averages is not None
    assert averages["natural"] is None
    expected = trial.trainer.mixture(1.0)
    mixed = mixed_state(averages, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(mixed.values(), expected, strict=True))


class Shifted(nn.Module):
    """A linear model with spectral norm, of images less a buffer that is not persistent."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 2))
        self.register_buffer("mean", torch.zeros(16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1) - self.mean)
        return logits


def test_a_mixture_in_a_file_is_the_mixture_in_memory(tmp_path: Path) -> None:
    averages = {}
    for name in ("natural", "robust"):
        model = Shifted()
        model.mean.uniform_()
        averages[name] = named(model, weights_of(model))
    expected = Shifted().eval()
    load_weights(expected, mixed_state(averages, 0.3))
    save_sealed(tmp_path / "mixture.pt", mixed_state(averages, 0.3))
    save_sealed(tmp_path / "state.pt", state_of(expected))
    x = torch.rand(3, 1, 4, 4)
    for file in ("mixture.pt", "state.pt"):
        loaded = load_model(tmp_path / file, Shifted, trusted=False)
        assert torch.equal(loaded(x), expected(x))
    norm = torch.linalg.matrix_norm(expected.linear.weight.detach(), 2)
    torch.testing.assert_close(norm, torch.tensor(1.0))
    means = [averages[name]["mean"] for name in ("natural", "robust")]
    torch.testing.assert_close(expected.mean, 0.7 * means[0] + 0.3 * means[1])
