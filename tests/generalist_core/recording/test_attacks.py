"""Judging by recorded attacks is judging by attacks; a trace stands in for a GPU's recording."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from generalist_core.attacks.gradient import perturb
from generalist_core.config import FGSM, PGD, Attack, EvaluationConfig, MultiTargeted, NamedAttack
from generalist_core.recording.attacks import RecordedAttacks
from generalist_core.recording.steps import recorded_on_gpu
from generalist_core.training.averaging import weights_of
from generalist_core.training.cost import evaluation_cost
from generalist_core.training.evaluator import Craft, Evaluator, Judgement
from tests.helpers.problems import RADII, tiny_split
from tests.helpers.traces import Traces

N_IMAGES, BATCH = 60, 8
LINF = PGD(epsilon=0.1, steps=3)
RECORDED: list[Attack] = [
    FGSM(epsilon=0.1),
    *(PGD(epsilon=radius, norm=norm, steps=3) for norm, radius in RADII.items()),
    PGD(epsilon=0.1, steps=3, loss="kl"),
]


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
        )


def judged(
    craft: Craft, *attacks: Attack, folds: bool = True, device: str = "cpu"
) -> list[Judgement]:
    """Four learners by one evaluator."""
    named = tuple(NamedAttack(name=f"attack{i}", attack=a) for i, a in enumerate(attacks))
    evaluator = Evaluator(
        net(0).to(device),
        tiny_split(N_IMAGES).to(torch.device(device)),
        EvaluationConfig(attacks=named, batch_size=BATCH),
        seed=0,
        dtype=torch.float32,
        fold_batchnorm=folds,
        craft=craft,
    )
    return [evaluator.judge(weights_of(net(seed))) for seed in range(4)]


@pytest.mark.parametrize("attack", RECORDED, ids=str)
@pytest.mark.parametrize("folds", [False, True])
def test_recorded_attacks_find_and_cost_what_others_do(attack: Attack, folds: bool) -> None:
    traces = Traces()
    found = judged(RecordedAttacks(traces.trace), attack, folds=folds)
    assert found == judged(perturb, attack, folds=folds)
    assert len({judgement.accuracies["attack0"] for judgement in found}) > 1
    assert traces.n_recorded == 2, "once for whole batches, once for the last"
    assert traces.n_replayed > 20


def test_each_attack_has_a_recording_of_its_own() -> None:
    other, traces = PGD(epsilon=0.2, steps=2), Traces()
    found = judged(RecordedAttacks(traces.trace), LINF, other)
    assert found == judged(perturb, LINF, other)
    assert traces.n_recorded == 4


def test_the_recordings_of_many_attacks_are_all_kept() -> None:
    attacks = [PGD(epsilon=0.1 + 0.01 * n, steps=2) for n in range(6)]
    traces = Traces()
    found = judged(RecordedAttacks(traces.trace), *attacks)
    assert found == judged(perturb, *attacks)
    assert traces.n_recorded == 2 * len(attacks)


def test_attacks_that_spare_images_are_not_recorded() -> None:
    targeted, traces = MultiTargeted(epsilon=0.1, steps=3), Traces()
    found = judged(RecordedAttacks(traces.trace), targeted)
    assert found == judged(perturb, targeted)
    assert traces.n_recorded == 0
    most = N_IMAGES * evaluation_cost(
        EvaluationConfig(attacks=(NamedAttack(name="linf", attack=targeted),))
    )
    assert 0 < min(judgement.forward_images for judgement in found) <= 2 * most


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("attack", RECORDED, ids=str)
def test_a_gpu_judges_by_its_recording_as_without(attack: Attack) -> None:
    crafts: list[Craft] = [perturb, RecordedAttacks(recorded_on_gpu)]
    found = [judged(craft, attack, device="cuda") for craft in crafts]
    for plain, recorded in zip(*found, strict=True):
        assert recorded.forward_images == plain.forward_images
        assert recorded.accuracies == pytest.approx(plain.accuracies, abs=1 / N_IMAGES)
