"""An exported model does as the one in the sweep, wherever it is loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from generalist_core.config.codec import replace_at
from generalist_core.data.datasets import load_dataset
from generalist_core.models.build import build_model
from generalist_core.training.averaging import load_weights
from generalist_core.validation import InvalidConfigError
from search.api.export import ExportError, _serialised, export, load_export
from search.api.verify import verify
from search.cli.main import main
from search.config import CustomParts, VerifyConfig
from search.errors import SweepFolderError
from search.files import load_tensors, read_json, read_sealed_json, write_json
from search.running.mixtures import empty_model, mixed_state
from search.study.folder import Sweep
from tests.helpers.small_sweep import copy_of, small_sweep
from tests.helpers.tiny import tiny_config

WITHOUT_US = """
import sys, warnings
for name in ("search", "generalist_core", "spaces"):
    sys.modules[name] = None
import torch
images = torch.load("images.pt")
warnings.simplefilter("ignore")
{lines}
torch.save(logits, "logits.pt")
"""


@pytest.fixture(scope="module")
def swept(two_trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return copy_of(two_trials, tmp_path_factory.mktemp("export") / "sweep")


@pytest.fixture
def own(swept: Sweep, tmp_path: Path) -> Sweep:
    """A copy of the sweep that a test may change."""
    return copy_of(swept.folder, tmp_path / "sweep")


def eager(sweep: Sweep, images: Tensor) -> Tensor:
    """The logits of the front's knee, from the trial's own files."""
    point, config = sweep.pick("knee").point, sweep.config.base
    model = empty_model(config, load_dataset(config.data), None)
    averages = load_tensors(sweep.folder / "trials" / point.trial / "averages.pt")
    load_weights(model, mixed_state(averages, point.mixing_ratio))
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["torchscript", "exported"])
def test_a_program_runs_without_our_code_by_the_cards_three_lines(
    file_format: str, swept: Sweep, tmp_path: Path
) -> None:
    card = export(swept, "knee", tmp_path / "model.bin", file_format=file_format)
    assert len(card["load"]) == 3
    images = torch.rand(7, 1, 8, 8)
    torch.save(images, tmp_path / "images.pt")
    script = WITHOUT_US.format(lines="\n".join(card["load"]))
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    logits = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(logits, eager(swept, images), rtol=1e-5, atol=1e-5)


def test_weights_are_a_state_dict_that_the_cards_lines_load(
    swept: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = export(swept, "knee", tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    found = {"images": torch.rand(3, 1, 8, 8)}
    exec("\n".join(card["load"]), found)
    torch.testing.assert_close(found["logits"], eager(swept, found["images"]), rtol=0, atol=0)
    model = load_export("model.pt")
    assert not model.training
    assert set(torch.load(tmp_path / "model.pt", weights_only=True)) == set(model.state_dict())


def test_the_card_tells_what_was_measured_and_how(swept: Sweep, tmp_path: Path) -> None:
    card = export(swept, "max robust", tmp_path / "model.pt")
    assert card == read_sealed_json(tmp_path / "model.pt.json")
    point = swept.pick("max robust").point
    assert (card["trial"], card["mixing_ratio"]) == (point.trial, point.mixing_ratio)
    assert card["reason"].startswith("The largest robust accuracy")
    low, high = card["validation"]["robust"]["interval"]
    assert low <= card["validation"]["robust"]["accuracy"] == point.accuracies["robust"] <= high
    assert card["validation"]["n_images"] == 50
    attack = card["attacks"]["robust"]
    assert (attack["type"], attack["norm"], attack["epsilon"]) == ("PGD", "linf", 0.2)
    assert attack["steps"] > 0
    assert (card["input"]["shape"], card["input"]["range"]) == ([1, 8, 8], [0, 1])
    assert card["output"]["classes"] == 10
    assert card["config"] == point.config
    assert card["sweep"]["study"] == "small"
    content = (tmp_path / "model.pt").read_bytes()
    assert card["file"]["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_global_learner_is_exported_as_it_was_trained(tmp_path: Path) -> None:
    config = replace_at(tiny_config(), "mixing.ratio.values", [1.0, 0.5])
    sweep = small_sweep(tmp_path / "sweep", config)
    card = export(sweep, "0001-global", tmp_path / "model.pt")
    assert (card["trial"], card["mixing_ratio"]) == ("0001", "global")
    averages = load_tensors(sweep.folder / "trials" / "0001" / "averages.pt")
    found = torch.load(tmp_path / "model.pt", weights_only=True)
    for name, tensor in averages["global"].items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_verified_results_stand_in_the_card(own: Sweep, tmp_path: Path) -> None:
    assert export(own, "knee", tmp_path / "before.pt")["test"] is None
    document = verify(own, VerifyConfig(attacks=("fgsm",), n_images=20))
    card = export(own, "knee", tmp_path / "after.pt")
    row = next(r for r in document["points"] if r["name"] == own.pick("knee").point.name)
    assert card["test"]["n_images"] == 20
    assert card["test"]["robust"]["accuracy"] == row["test"]["robust"]
    assert card["test"]["suites"]["robust"]["suite"]["attacks"] == ["fgsm"]


@pytest.mark.parametrize("there", ["model.pt", "model.pt.json"])
def test_nothing_is_overwritten_unless_forced(there: str, swept: Sweep, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(SweepFolderError, match=f"must be new, but .*{there} exist.*--force"):
        export(swept, "knee", tmp_path / "model.pt")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"
    export(swept, "knee", tmp_path / "model.pt", force=True)
    assert load_export(tmp_path / "model.pt")


def test_a_folder_that_is_not_there_is_named(swept: Sweep, tmp_path: Path) -> None:
    with pytest.raises(SweepFolderError, match="nowhere must be a folder"):
        export(swept, "knee", tmp_path / "nowhere" / "model.pt")


def test_a_trial_whose_weights_are_gone_is_named(own: Sweep, tmp_path: Path) -> None:
    point = own.pick("knee").point
    (own.folder / "trials" / point.trial / "averages.pt").unlink()
    with pytest.raises(SweepFolderError, match=r"averages\.pt must hold .*not exist.*put back"):
        export(own, "knee", tmp_path / "model.pt")


def test_a_custom_model_needs_python(
    own: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = read_json(own.folder / "sweep.json")
    write_json(own.folder / "sweep.json", {**request, "custom": {"data": None, "model": True}})
    to = str(tmp_path / "model.pt")
    assert main(["export", str(own.folder), "--pick", "knee", "--to", to]) == 2
    assert "from Python with data= and model=" in capsys.readouterr().err

    def build(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
        config = own.config.base
        return empty_model(config, load_dataset(config.data), None)

    export(own, "knee", tmp_path / "model.pt", model=build)
    with pytest.raises(InvalidConfigError, match="load_export"):
        load_export(tmp_path / "model.pt")
    assert load_export(tmp_path / "model.pt", model=build)
    just_run = dataclasses.replace(own, custom=CustomParts(model=build))
    assert export(just_run, "knee", tmp_path / "again.pt")["sweep"]["custom_model"]


class OfTwo(nn.Module):
    """Takes two images, never more or fewer."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 64)


@pytest.mark.parametrize("file_format", ["torchscript", "exported"])
def test_a_model_for_one_batch_size_only_is_refused(file_format: str) -> None:
    with pytest.raises(ExportError, match="any number of images"):
        _serialised(OfTwo(), (1, 8, 8), file_format)


def test_a_program_is_loaded_by_torch_not_as_weights(swept: Sweep, tmp_path: Path) -> None:
    export(swept, "knee", tmp_path / "model.pt2", file_format="exported")
    with pytest.raises(InvalidConfigError, match=r"format is exported.*torch.export.load"):
        load_export(tmp_path / "model.pt2")


def test_the_command_line_picks_exports_and_says_how_to_load(
    swept: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, name = str(swept.folder), swept.pick("knee").point.trial
    assert main(["front", folder, "--pick", "knee"]) == 0
    assert capsys.readouterr().out.startswith(name)
    assert main(["front", folder, "--pick", "knee", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"point", "reason", "picked_share"}
    assert document["point"]["trial"] == name
    assert main(["export", folder, "--pick", "knee", "--to", str(tmp_path / "m.pt")]) == 0
    assert "load_export('m.pt')" in capsys.readouterr().out
    arguments = ["export", folder, "--pick", "knee", "--to", str(tmp_path / "m.pt")]
    assert main([*arguments, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"]["name"] == "m.pt"
    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err


def test_a_model_that_scores_otherwise_than_recorded_is_refused(
    swept: Sweep, tmp_path: Path
) -> None:
    config = swept.config.base

    def flipped(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
        model = build_model(config.model, n_classes, shape, seed=0)
        model.register_forward_hook(lambda module, x, logits: -logits)
        return model

    with pytest.raises(InvalidConfigError, match=r"must have the natural accuracy.*50 images"):
        export(swept, "knee", tmp_path / "model.pt", model=flipped)
    assert not list(tmp_path.iterdir())


def test_a_model_that_noise_changes_a_little_is_exported(swept: Sweep, tmp_path: Path) -> None:
    config = swept.config.base

    def noisy(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
        model = build_model(config.model, n_classes, shape, seed=0)
        model.register_forward_hook(lambda module, x, y: y + 1e-3 * torch.rand_like(y))
        return model

    assert export(swept, "knee", tmp_path / "model.pt", model=noisy)["file"]["format"] == "weights"
