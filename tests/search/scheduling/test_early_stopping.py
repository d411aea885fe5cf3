"""Law 6: multi-objective asynchronous successive halving."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import optuna
import pytest

from benchmarks.simulator import SimulatedTrainer, WarmupsInMemory, World
from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.config import SuccessiveHalving
from search.running.trial import Training
from search.scheduling.early_stopping import Decision, Rungs, decide, rung_results
from tests.helpers.problems import three_experts

Report = tuple[str, str, np.ndarray]

RUNG = "global@4"


def stops_by_asha(values: list[float], eta: float) -> bool:
    """Whether the last value is below the floor(n / eta)-th largest of at least eta results."""
    if len(values) < eta:
        return False
    threshold = sorted(values, reverse=True)[math.floor(len(values) / eta) - 1]
    return values[-1] < threshold


def stops(points: np.ndarray, eta: float) -> list[bool]:
    """The decisions on results (n, k, m) that reach one rung one after the other."""
    rungs = Rungs(SuccessiveHalving(eta=eta))
    return [rungs.report(f"{i:04d}", RUNG, result).stop for i, result in enumerate(points)]


def cloud(seed: int, n: int = 60, k: int = 1, m: int = 2, decimals: int = 9) -> np.ndarray:
    """Results (n, k, m) in [0, 1]; with few decimals there are many ties."""
    return np.round(np.random.default_rng(seed).random((n, k, m)), decimals)


def place_by_definition(points: np.ndarray) -> int:
    """The place of the last row in two objectives: peel fronts, then compare exclusive areas."""
    at_least = (points[:, None] >= points[None]).all(2)
    dominates = at_least & ~at_least.T
    left, n_better = np.arange(len(points)), 0
    while dominates[np.ix_(left, [len(points) - 1])].any():
        front = left[~dominates[np.ix_(left, left)].any(0)]
        n_better, left = n_better + len(front), np.setdiff1d(left, front)
    front = left[~dominates[np.ix_(left, left)].any(0)]
    unit = (points - points.min(0)) / np.ptp(points, axis=0)
    areas = {i: exclusive_area(unit[i], unit[np.setdiff1d(front, [i])]) for i in front}
    return 1 + n_better + sum(area > areas[len(points) - 1] + 1e-12 for area in areas.values())


def exclusive_area(point: np.ndarray, others: np.ndarray) -> float:
    """The area above (-0.1, -0.1) that `point` dominates, and no other point of its front."""
    if (others == point).all(1).any():
        return 0.0
    x = max([-0.1, *others[others[:, 0] < point[0], 0]])
    y = max([-0.1, *others[others[:, 1] < point[1], 1]])
    return float((point[0] - x) * (point[1] - y))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("eta", [1.5, 2, 3, 4])
@pytest.mark.parametrize(("m", "k", "decimals"), [(2, 1, 9), (2, 1, 1), (2, 3, 2), (3, 2, 2)])
def test_with_identical_objectives_it_is_single_objective_halving(
    seed: int, eta: float, m: int, k: int, decimals: int
) -> None:
    values = cloud(seed, k=k, m=1, decimals=decimals)
    best = values.max((1, 2)).tolist()
    expected = [stops_by_asha(best[: i + 1], eta) for i in range(len(best))]
    assert stops(np.repeat(values, m, axis=2), eta) == expected
    assert any(expected)


@pytest.mark.parametrize("seed", range(3))
def test_values_a_rounding_apart_are_still_told_apart(seed: int) -> None:
    steps = np.random.default_rng(seed).integers(0, 9, 50)
    values = [-1.0, 1.0] + [0.3 + step * np.spacing(0.3) for step in steps]
    expected = [stops_by_asha(values[: i + 1], 3) for i in range(len(values))]
    assert stops(np.array(values)[:, None, None].repeat(2, 2), 3) == expected


@pytest.mark.parametrize("constant", [0, 1])
def test_an_objective_that_is_the_same_for_all_changes_nothing(constant: int) -> None:
    points = cloud(0)
    points[:, :, constant] = 0.0
    values = points[:, 0, 1 - constant].tolist()
    assert stops(points, 3) == [stops_by_asha(values[: i + 1], 3) for i in range(len(values))]


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_with_identical_objectives_it_is_optunas_pruner_once_eta_results_are_there(
    eta: int,
) -> None:
    """Before that, Optuna stops all but the best, and we wait. Trials continue as we decide.

    Ray's AsyncHyperBand is no oracle: it compares the newcomer with an interpolated percentile of
    the results before it, from the second result on.
    """
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=eta)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    rungs, n_compared = Rungs(SuccessiveHalving(eta=eta)), 0
    for curve in np.random.default_rng(1).random((80, 3)).round(2):
        trial = study.ask()
        for level, value in zip((1, eta, eta**2), curve, strict=True):
            trial.report(value, level)
            pruned = trial.should_prune()
            decision = rungs.report(str(trial.number), f"global@{level}", [[value, value]])
            if decision.n_results >= eta:
                n_compared += 1
                assert decision.stop == pruned
            if decision.stop:
                break
    assert n_compared > 80


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("decimals", [1, 9])
def test_the_place_is_that_of_a_second_implementation(seed: int, decimals: int) -> None:
    points = cloud(seed, n=25, decimals=decimals)[:, 0]
    assert decide([row[None] for row in points], 3).place == place_by_definition(points)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("m", "k", "decimals"), [(2, 1, 1), (2, 4, 9), (3, 2, 9)])
class TestInvariance:
    def test_positive_affine_rescaling(self, seed: int, m: int, k: int, decimals: int) -> None:
        points = cloud(seed, k=k, m=m, decimals=decimals)
        source = np.random.default_rng(seed)
        scale, shift = np.exp(source.normal(0, 3, m)), source.normal(0, 3, m)
        assert stops(points * scale + shift, 3) == stops(points, 3)

    def test_permuted_objectives(self, seed: int, m: int, k: int, decimals: int) -> None:
        points = cloud(seed, k=k, m=m, decimals=decimals)
        for shifted in range(1, m):
            assert stops(np.roll(points, shifted, axis=2), 3) == stops(points, 3)

    def test_the_order_of_a_trials_points_and_of_earlier_results(
        self, seed: int, m: int, k: int, decimals: int
    ) -> None:
        *earlier, newcomer = cloud(seed, k=k, m=m, decimals=decimals)
        shuffled = np.random.default_rng(seed).permutation(np.array(earlier)[:, ::-1])
        assert (
            stops(np.array([*shuffled, newcomer[::-1]]), 3)[-1]
            == (stops(np.array([*earlier, newcomer]), 3)[-1])
        )

    def test_a_trials_own_dominated_points_and_duplicates(
        self, seed: int, m: int, k: int, decimals: int
    ) -> None:
        points = cloud(seed, k=k, m=m, decimals=decimals)
        assert stops(np.concatenate([points, points, points - 0.01], axis=1), 3) == stops(points, 3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("m", "k"), [(2, 1), (2, 4), (3, 2)])
def test_a_trial_that_holds_the_best_of_an_objective_is_never_stopped(
    seed: int, m: int, k: int
) -> None:
    points = cloud(seed, n=80, k=k, m=m)
    best = np.maximum.accumulate(points.max(1), axis=0)
    holds = (points.max(1) == best).any(1)
    stopped = np.array(stops(points, 4))
    assert not stopped[holds].any()
    assert stopped.any()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_newcomer_that_extends_the_front_in_range_is_never_stopped(axis: int) -> None:
    angles = np.linspace(0.3, 1.2, 40)
    front = np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, None]
    newcomer = np.full((1, 1, 2), -5.0)
    newcomer[..., axis] = front[..., axis].max() + 1e-9
    assert not stops(np.concatenate([front, newcomer]), 10)[-1]


def test_a_rung_by_hand() -> None:
    rungs = Rungs(SuccessiveHalving(eta=2))
    results = {"a": (0.0, 1.0), "b": (1.0, 0.0), "c": (0.5, 0.5), "d": (0.4, 0.4), "e": (0.6, 0.5)}
    decisions = [rungs.report(trial, RUNG, [point]) for trial, point in results.items()]
    assert [d.stop for d in decisions] == [False, False, False, True, False]
    assert decisions[2] == Decision(stop=False, place=1, n_results=3)  # 0.5 * 0.5 > 1.1 * 0.1
    assert decisions[3] == Decision(stop=True, place=4, n_results=4)  # dominated by c
    assert decisions[4] == Decision(stop=False, place=1, n_results=5)


def test_a_trial_ranks_by_its_best_point() -> None:
    points = cloud(3, n=9)
    newcomer = np.array([[0.0, 0.0], [2.0, 0.1], [0.1, 0.2]])
    assert not decide([*points, newcomer], 9).stop
    assert decide([*points, newcomer[:1]], 9).stop


@pytest.mark.parametrize("points", [[[0.5, math.nan]], [[0.9, 0.9], [math.inf, 0.1]], [], [[]]])
def test_a_result_without_all_objectives_decides_nothing_and_leaves_no_trace(
    points: list[list[float]],
) -> None:
    rungs, without = Rungs(SuccessiveHalving(eta=2)), Rungs(SuccessiveHalving(eta=2))
    for i, result in enumerate(cloud(0, n=5)):
        rungs.report(str(i), RUNG, result)
        without.report(str(i), RUNG, result)
    assert rungs.report("new", RUNG, points) == Decision(stop=False, place=None, n_results=5)
    for name, result in zip(("new", "newer"), cloud(1, n=2), strict=True):
        assert rungs.report(name, RUNG, result) == without.report(name, RUNG, result)


def test_results_of_other_objectives_are_refused() -> None:
    rungs = Rungs(SuccessiveHalving())
    rungs.report("a", RUNG, [[0.1, 0.2]])
    with pytest.raises(InvalidConfigError, match="m objectives as in the other results"):
        rungs.report("b", RUNG, [[0.1, 0.2, 0.3]])
    with pytest.raises(InvalidConfigError, match=r"got shape \(2,\)"):
        rungs.report("b", RUNG, [0.1, 0.2])


def test_what_is_reported_again_gets_its_first_decision() -> None:
    rungs, without = Rungs(SuccessiveHalving()), Rungs(SuccessiveHalving())
    first = [rungs.report(str(i), RUNG, result) for i, result in enumerate(cloud(0))]
    assert first == [without.report(str(i), RUNG, result) for i, result in enumerate(cloud(0))]
    again = [rungs.report(str(i), RUNG, result) for i, result in enumerate(cloud(1))]
    assert again == first
    last = cloud(2)[0]
    assert rungs.report("new", RUNG, last) == without.report("new", RUNG, last)


def reports(n: int = 40) -> Iterator[Report]:
    source = np.random.default_rng(5)
    for i in range(n):
        for rung in ("robust@2", "global@6"):
            yield f"{i:04d}", rung, source.random((3, 2))


def test_a_decision_leaves_out_unseen_trials() -> None:
    """So trials of one round do not affect each other, in whatever order they report."""
    for first, second in (("a", "b"), ("b", "a")):
        rungs = Rungs(SuccessiveHalving(eta=2))
        for i in range(3):
            rungs.report(f"before{i}", "global@1", [[0.5, 0.5]])
        places = {
            trial: rungs.report(
                trial, "global@1", [[0.6, 0.6] if trial == "a" else [0.4, 0.4]], unseen={"a", "b"}
            )
            for trial in (first, second)
        }
        assert {trial: (d.place, d.n_results) for trial, d in places.items()} == {
            "a": (1, 4),
            "b": (4, 4),
        }


def test_rungs_of_other_names_have_nothing_in_common() -> None:
    both = Rungs(SuccessiveHalving())
    apart = {name: Rungs(SuccessiveHalving()) for name in ("robust@2", "global@2", "global@22")}
    for trial, _, points in reports():
        for name, own in apart.items():
            assert both.report(trial, name, points) == own.report(trial, name, points)


# What an epoch reports


def judging(every_epochs: int = 1, config: TrainConfig | None = None) -> TrainConfig:
    return replace_at(config or short(), "evaluation.every_epochs", every_epochs)


def alone(name: str, epoch: int, *objectives: str) -> dict[str, float]:
    """The metrics of an expert that was trained alone, and judged in these objectives."""
    judged = {f"accuracy/{name}/{objective}": 0.5 for objective in objectives}
    return {"epoch": 0.0, f"epoch/{name}": float(epoch), **judged}


def together(epoch: int, **judged: Sequence[str]) -> dict[str, float]:
    """The metrics of an epoch of both experts; `judged` gives the objectives of each learner."""
    epochs = {"epoch": epoch, "epoch/natural": epoch, "epoch/robust": epoch}
    names = {f"accuracy/{learner}/{o}": 0.5 for learner, of in judged.items() for o in of}
    return {**epochs, **names}


BOTH = ("natural", "robust")


def test_an_expert_with_an_attack_reports_to_its_own_rungs() -> None:
    metrics = {**alone("robust", 3, *BOTH), "accuracy/robust/robust": 0.25}
    assert rung_results(metrics, judging(), SuccessiveHalving()) == {"robust@3": [0.5, 0.25]}


def test_a_natural_expert_reports_nowhere() -> None:
    for epoch in range(1, 17):
        assert (
            rung_results(alone("natural", epoch, "natural"), judging(), SuccessiveHalving()) == {}
        )
        side_by_side = together(epoch, natural=["natural"], robust=BOTH)
        assert "natural" not in str(rung_results(side_by_side, judging(), SuccessiveHalving()))


def test_in_co_training_the_global_learner_reports_for_all() -> None:
    metrics = together(9, **{"global": BOTH})
    assert rung_results(metrics, judging(), SuccessiveHalving()) == {"global@9": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("every_epochs", "due"),
    [(1, {1: 1, 3: 3, 9: 9}), (2, {2: 1, 4: 3, 10: 9}), (4, {4: 3, 12: 9}), (16, {})],
)
def test_only_due_epochs_report_and_never_the_last(every_epochs: int, due: dict[int, int]) -> None:
    config = judging(every_epochs)
    for epoch in range(1, 17):
        for metrics, learner in (
            (alone("robust", epoch, *BOTH), "robust"),
            (together(epoch, **{"global": BOTH}), "global"),
        ):
            expected = {f"{learner}@{due[epoch]}": [0.5, 0.5]} if epoch in due else {}
            assert rung_results(metrics, config, SuccessiveHalving()) == expected


def test_even_the_densest_rungs_spare_the_last_epoch() -> None:
    densest = SuccessiveHalving(growth=1.001)
    reported = [
        list(rung_results(together(epoch, **{"global": BOTH}), judging(), densest))
        for epoch in range(1, 17)
    ]
    assert reported == [[f"global@{epoch}"] for epoch in range(1, 16)] + [[]]


def test_an_epoch_without_an_evaluation_reports_nothing() -> None:
    assert rung_results(together(9), judging(), SuccessiveHalving()) == {}
    assert (
        rung_results(together(9, **{"global": ["natural"]}), judging(), SuccessiveHalving()) == {}
    )


def test_two_experts_with_attacks_report_both() -> None:
    base = judging(config=three_experts(epochs=5))
    objectives = base.evaluation.objective_names
    judged = {
        f"accuracy/{learner}/{objective}": 0.1
        for learner in ("robust", "sparse")
        for objective in objectives
    }
    epochs = {f"epoch/{name}": 3 for name in ("natural", "robust", "sparse")}
    found = rung_results({"epoch": 3, **epochs, **judged}, base, SuccessiveHalving())
    assert found == {"robust@3": [0.1] * 3, "sparse@3": [0.1] * 3}


@pytest.mark.parametrize("shares", [True, False])
def test_a_whole_trial_reports_once_to_each_rung_that_it_meets(shares: bool) -> None:
    config = replace_at(judging(), "sync.start_epoch", 5)
    trainer = SimulatedTrainer(config, World())
    training = Training(trainer, WarmupsInMemory() if shares else None)
    reported = []
    while not training.is_done:
        reported += list(rung_results(training.attempt() or {}, config, SuccessiveHalving()))
    assert reported == ["robust@1", "robust@3", "global@9"]


def test_rungs_do_not_change_what_they_are_given() -> None:
    points = cloud(0)
    stops(points, 3)
    np.testing.assert_array_equal(points, cloud(0))
