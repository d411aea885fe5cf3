"""A trial as Ray sees it: results are flat, and an actor trains one trial after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune.utils import flatten_dict

from generalist_core.config.codec import to_json
from generalist_core.models.build import ModelFactory
from search.files import read_sealed_json
from search.front.points import points_from_dicts
from search.running.ray_trainable import GeneralistTrainable
from tests.helpers.problems import tiny_dataset, two_experts
from tests.helpers.tiny import begin, finish

CONFIG = two_experts()


def request(folder: Path) -> dict[str, Any]:
    return {"trial": folder.name, "folder": str(folder), "config": to_json(CONFIG)}


def actor(folder: Path, model: ModelFactory | None = None) -> GeneralistTrainable:
    """An actor's object with its first trial; Ray would pass the same arguments."""
    made = GeneralistTrainable(config=request(folder))
    made.cleanup()
    made.setup(request(folder), data=tiny_dataset(), model=model)
    return made


def results(actor: GeneralistTrainable) -> list[dict[str, Any]]:
    """All results of a trial, as `train` gives them to Ray."""
    given = [actor.train()]
    while not given[-1]["done"]:
        given.append(actor.train())
        assert len(given) <= CONFIG.epochs
    return given


def failing(*_: Any) -> Any:
    raise ValueError("planted")


def test_a_trial_ends_with_the_points_of_one_without_ray(tmp_path: Path) -> None:
    training = actor(tmp_path / "0000")
    given = results(training)
    training.cleanup()
    alone = finish(begin(tmp_path / "alone"))
    last = given[-1]
    assert [result["epoch"] for result in given] == [1, 2, 3, 4, 5]
    assert points_from_dicts(last["points"]) == points_from_dicts(
        read_sealed_json(alone.files.points)["points"]
    )
    assert last["forward_images"] == alone.training.cost["forward_images"]
    assert (last["lost_forward_images"], last["n_accumulations"]) == (0, 1)
    assert not (tmp_path / "0000" / "hang.txt").exists()
    assert not (tmp_path / "0000" / "heartbeat").exists()


def test_one_actor_trains_one_trial_after_another(tmp_path: Path) -> None:
    """And Ray flattens the results that a searcher sees."""
    training = actor(tmp_path / "0000", failing)
    last = results(training)[-1]
    assert last["failure"] == "error"
    assert {"failure", "reason", "forward_images", "reused_forward_images"} <= set(
        flatten_dict(last)
    )
    training.worker.model = None
    assert training.reset_config(request(tmp_path / "0001"))
    assert "points" in results(training)[-1]
    training.cleanup()
