"""The attack suite from the command line, on any saved model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from generalist_core.config import ModelConfig
from generalist_core.evaluation.suite import SuiteEvaluation
from generalist_core.models.build import build_model
from generalist_core.validation import InvalidConfigError
from search.api.saved_models import load_model
from search.cli.main import main

DATA = ["--data", "digits", "--model", "convnet", "--width", "2", "--epsilon", "0.1"]
ATTACKS = ["--attacks", "fgsm,pgd-5", "--n-images", "40"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The initial weights of a small net."""
    model = build_model(ModelConfig(width=2), 10, (1, 8, 8), seed=0)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.save(model, tmp_path / "module.pt")
    return tmp_path / "model.pt"


def test_a_state_dict_is_evaluated(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(saved), *DATA, *ATTACKS, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["accuracy_after"]) == ["natural", "fgsm", "pgd-5"]
    assert document["worst_case"] == min(document["accuracy_after"].values())
    assert document["n_images"] == 40
    assert document["suite"]["epsilon"] == 0.1
    assert main(["evaluate", str(saved), *DATA, *ATTACKS]) == 0
    assert "pgd-5" in capsys.readouterr().out


def test_progress_is_stored_and_continued(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(saved.parent / "progress.pt")]
    outputs = []
    for _ in range(2):
        assert main(["evaluate", str(saved), *DATA, *ATTACKS, *out, "--json"]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1]
    assert main(["evaluate", str(saved), *DATA, "--attacks", "fgsm", *out]) == 2
    assert "stored evaluation must be of this model, data and suite" in capsys.readouterr().err


def test_a_batch_that_does_not_fit_in_memory_is_told(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def advance(self: SuiteEvaluation) -> None:
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(SuiteEvaluation, "advance", advance)
    assert main(["evaluate", str(saved), *DATA, *ATTACKS]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "250 images do not." in said
    assert "such as --attack-batch-size 125;" in said


def test_a_whole_module_is_code_and_needs_trust(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = str(saved.parent / "module.pt")
    assert main(["evaluate", module, *DATA, *ATTACKS]) == 2
    assert "--trust" in capsys.readouterr().err
    assert main(["evaluate", module, *DATA, *ATTACKS, "--trust"]) == 0


@pytest.mark.parametrize("state", [{}, {"nothing": torch.zeros(1)}], ids=["empty", "foreign"])
def test_weights_of_another_architecture_are_refused(state: object, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "other.pt")
    net = build_model(ModelConfig(width=2), 10, (1, 8, 8), seed=0)
    with pytest.raises(InvalidConfigError, match="weights of the architecture"):
        load_model(tmp_path / "other.pt", lambda: net, trusted=False)


def test_weights_of_another_width_are_refused(saved: Path) -> None:
    wider = build_model(ModelConfig(width=3), 10, (1, 8, 8), seed=0)
    with pytest.raises(InvalidConfigError, match="--width"):
        load_model(saved, lambda: wider, trusted=False)
