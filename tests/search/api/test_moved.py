"""A sweep goes on with parts that have moved, if they are the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from generalist_core.validation import InvalidConfigError
from search.api.moved import moved_parts
from search.cli.main import main
from search.study.folder import open_sweep
from tests.helpers.problems import write_image_folder

MODEL = """
from torch import nn

def net(n_classes, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], n_classes))
"""

SPACE = """
from spaces import tune_float

def rates(trial, base):
    return tune_float(trial, base, "experts.natural.optimizer.lr", 0.01, 0.2)
"""


@pytest.fixture(scope="module")
def began(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep and all its parts: the images, the model and the space."""
    place = tmp_path_factory.mktemp("began")
    write_image_folder(place / "images")
    (place / "net.py").write_text(MODEL)
    (place / "space.py").write_text(SPACE)
    words = ["sweep", "--data", place / "images", "--model", f"{place}/net.py:net"]
    words += ["--space", f"{place}/space.py:rates", "--trials", "1", "--local", "--epochs", "2"]
    words += [
        "--n-validation",
        "4",
        "--batch-size",
        "4",
        "--image-size",
        "8",
        "--out",
        place / "out",
    ]
    assert main([*map(str, words), "--quiet"]) == 0
    return place


@pytest.fixture
def moved(began: Path, tmp_path: Path) -> Iterator[Path]:
    """The same, after a move."""
    hidden = began.with_name(f"{began.name}-gone")
    shutil.copytree(began, tmp_path / "new")
    began.rename(hidden)
    yield tmp_path / "new"
    hidden.rename(began)


def test_what_has_moved_is_named(
    moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, to = (
        str(moved / "out"),
        ["--data-root", moved / "images", "--model", f"{moved}/net.py:net"],
    )
    words, space = [*map(str, to)], ["--space", f"{moved}/space.py:rates"]
    assert main(["resume", out, "--trials", "2"]) == 2
    assert "a file that can be read, but" in capsys.readouterr().err
    for _ in range(2):
        assert main(["resume", out, "--trials", "2", *words, *space, "--quiet"]) == 0
    assert open_sweep(moved / "out").counts.completed == 2
    assert main(["export", out, "--pick", "knee", "--to", str(tmp_path / "a.pt"), *words]) == 0
    attack = ["--attacks", "fgsm", "--n-images", "5"]
    assert main(["verify", out, *attack, *words, "--quiet"]) == 0


def test_another_part_is_refused(moved: Path) -> None:
    out = moved / "out"
    (moved / "net.py").write_text(MODEL.replace("Linear", "LazyLinear"))
    (moved / "space.py").write_text(SPACE.replace("0.2", "0.3"))
    for part in ({"model": f"{moved}/net.py:net"}, {"space": f"{moved}/space.py:rates"}):
        with pytest.raises(InvalidConfigError, match="must be as it was when the run began"):
            moved_parts(out, **part)
    next((moved / "images" / "train").rglob("*.png")).unlink()
    with pytest.raises(InvalidConfigError, match="must be those of the sweep, whose digest"):
        moved_parts(out, data_root=moved / "images")


def test_what_is_not_in_a_file_cannot_have_moved(two_trials: Path, tmp_path: Path) -> None:
    for part, why in {
        "model": "the model convnet, which is not in a file",
        "space": "a space that is built in",
        "data_root": "no digest of its images",
    }.items():
        option = part.replace("_", "-")
        with pytest.raises(InvalidConfigError, match=f"`--{option}` must be left out.*{why}"):
            moved_parts(two_trials, **{part: tmp_path / "a.py:b"})
