"""What people save of a model is loaded as that model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from generalist_core.config import ModelConfig
from generalist_core.config.codec import from_dict
from generalist_core.data.datasets import load_dataset
from generalist_core.models.build import build_model
from generalist_core.validation import InvalidConfigError
from search.api.export import export
from search.api.saved_models import card_of, load_model, saved_model
from search.cli.main import main
from search.errors import SweepFolderError
from search.files import write_json, write_sealed_json
from search.study.folder import open_sweep
from tests.helpers.saved_weights import SAVED
from tests.helpers.small_sweep import copy_of

FAST = ["--attacks", "fgsm", "--n-images", "30", "--json"]


def net(seed: int = 0) -> nn.Module:
    return build_model(ModelConfig(width=2), 10, (1, 8, 8), seed=seed).eval()


@pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)
def test_weights_are_loaded_as_people_save_them(
    save: Callable[[nn.Module], Any], tmp_path: Path
) -> None:
    model, images = net(seed=1), torch.rand(3, 1, 8, 8)
    torch.save(save(model), tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt", net, trusted=False)
    assert torch.equal(loaded(images), model(images))


def evaluated(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main(["evaluate", *map(str, words), *FAST]) == 0
    return {**json.loads(capsys.readouterr().out), "seconds": 0}


@pytest.mark.slow
def test_an_export_is_evaluated_as_its_card_says(
    two_trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, documents = open_sweep(two_trials), []
    for file_format in ("weights", "torchscript", "exported"):
        file = tmp_path / f"model.{file_format}"
        export(sweep, "knee", file, file_format=file_format)
        documents.append(evaluated(capsys, file, "--trust"))
    documents.append(evaluated(capsys, two_trials))
    assert all(document == documents[0] for document in documents[1:])
    assert (
        documents[0]["suite"]["epsilon"] == sweep.config.base.evaluation.attacks[0].attack.epsilon
    )
    assert evaluated(capsys, file, "--trust", "--epsilon", "0.1")["suite"]["epsilon"] == 0.1


def test_a_point_of_a_sweep_is_picked(two_trials: Path, tmp_path: Path) -> None:
    sweep = open_sweep(two_trials)
    point, images = sweep.pick("max natural").point, torch.rand(3, 1, 8, 8)
    export(sweep, "max natural", tmp_path / "model.pt")
    config = from_dict(point.config, type(sweep.config.base))
    data = load_dataset(config.data)
    found = [
        saved_model(two_trials, pick="max natural").load(config, data)(images),
        saved_model(tmp_path / "model.pt").load(config, data)(images),
    ]
    assert torch.equal(*found)
    with pytest.raises(InvalidConfigError, match="given with the folder of a sweep"):
        saved_model(tmp_path / "model.pt", pick="knee")


def test_a_file_that_is_not_its_cards_is_refused(two_trials: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    export(copy_of(two_trials, tmp_path / "sweep"), "knee", file)
    card = tmp_path / "model.pt.json"
    assert card_of(file) is not None
    torch.save(net().state_dict(), file)
    with pytest.raises(SweepFolderError, match="must be the file of its card"):
        saved_model(file)
    card.write_text(card.read_text().replace("0", "1", 1))
    with pytest.raises(SweepFolderError, match="as it was written"):
        card_of(file)
    write_json(card, {"epoch": 3})
    assert card_of(file) is None  # it is another program's


def test_parts_from_python_must_be_named(
    two_trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = export(open_sweep(two_trials), "knee", tmp_path / "model.pt")
    card["sweep"] |= {"custom_data": True, "custom_model": True}
    write_sealed_json(tmp_path / "model.pt.json", card)
    words = ["evaluate", str(tmp_path / "model.pt"), *FAST]
    assert main([*words, "--data", "digits"]) == 2
    assert "its model came from Python" in capsys.readouterr().err
    assert main([*words, "--data", "digits", "--model", "convnet"]) == 0
