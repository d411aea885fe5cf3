"""Files and names of others: no code in them runs, no path leads out, no terminal obeys them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from generalist_core.config import DataConfig
from generalist_core.config.codec import to_json
from generalist_core.config.presets import short
from generalist_core.data.datasets import load_dataset
from generalist_core.validation import InvalidConfigError
from search.api.evaluate import evaluate_resumably
from search.api.export import export, load_export
from search.cli.main import main
from search.config import SweepConfig, VerifyConfig
from search.errors import SweepFolderError
from search.files import is_sealed, load_tensors, write_sealed_json
from search.monitoring.console import Lines, LiveView
from search.monitoring.log import redirect_output
from search.report.write import write_files
from search.running.warmups import WarmupStore
from search.study.failures import Failure
from search.study.folder import open_sweep
from search.study.results import Results
from tests import ROOT
from tests.helpers.evil import CONTROL, pickled, saved_by_torch, sealed
from tests.helpers.ledgers import new_ledger
from tests.helpers.problems import linear_net, tiny_dataset
from tests.helpers.small_sweep import copy_of
from tests.helpers.tiny import begin, tiny_config

EVERY_FORM = pytest.mark.parametrize("form", [saved_by_torch, pickled])
Form = Callable[[Path], bytes]

# Code in files


@EVERY_FORM
def test_no_code_in_a_checkpoint_or_a_warmup_runs(tmp_path: Path, form: Form) -> None:
    """Both have a digest, which anybody can compute; both are put aside and trained anew."""
    made, trial = tmp_path / "made", tmp_path / "trial"
    trial.mkdir()
    (trial / "checkpoint.pt").write_bytes(sealed(form(made), trial.name))
    assert is_sealed(trial / "checkpoint.pt", trial.name)
    assert begin(trial).trainer.epoch == 0
    assert (trial / "checkpoint.damaged").is_file()
    (tmp_path / "store" / "key").mkdir(parents=True)
    (tmp_path / "store" / "key" / "1.pt").write_bytes(sealed(form(made), "key/1/"))
    assert is_sealed(tmp_path / "store" / "key" / "1.pt", "key/1/")
    assert WarmupStore(tmp_path / "store").load("key", 1) is None
    assert not made.exists()


@pytest.mark.slow
@EVERY_FORM
def test_no_code_in_the_weights_of_a_sweep_runs(
    tmp_path: Path, two_trials: Path, form: Form
) -> None:
    made, sweep = tmp_path / "made", copy_of(two_trials, tmp_path / "out")
    for path in sweep.folder.glob("trials/*/averages.pt"):
        path.write_bytes(form(made))
    write_files(sweep.folder, sweep.results)
    with pytest.raises(SweepFolderError, match="must hold the weights of trial"):
        export(sweep, "knee", tmp_path / "model.pt")
    assert main(["verify", str(sweep.folder), "--attacks", "fgsm"]) == 2
    assert not made.exists()


@pytest.mark.slow
@EVERY_FORM
def test_no_code_in_a_model_or_an_evaluation_runs(
    tmp_path: Path, two_trials: Path, form: Form
) -> None:
    made, path = tmp_path / "made", tmp_path / "model.pt"
    export(open_sweep(two_trials), "knee", path)
    path.write_bytes(form(made))
    with pytest.raises(SweepFolderError, match="only tensors"):
        load_export(path)
    assert main(["evaluate", str(path), "--data", "digits", "--attacks", "fgsm"]) == 2
    data = tiny_dataset()
    model = linear_net(data.n_classes, data.shape).eval()
    suite = VerifyConfig(attacks=("fgsm",)).suite(tiny_config().evaluation.attacks[0].attack)
    with pytest.raises(SweepFolderError, match="must be a stored evaluation"):
        evaluate_resumably(model, data.validation, suite, place=path)
    assert not made.exists()


@pytest.mark.slow
def test_no_code_in_a_published_data_set_runs(tmp_path: Path) -> None:
    """MNIST's old files are torch's, CIFAR's are pickles with a known digest."""
    made, old = tmp_path / "made", tmp_path / "MNIST" / "processed"
    old.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        (old / name).write_bytes(saved_by_torch(made))
    for folder, names in {
        "cifar-10-batches-py": [
            "batches.meta",
            "test_batch",
            *(f"data_batch_{n}" for n in "12345"),
        ],
        "cifar-100-python": ["meta", "train", "test"],
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(pickled(made))
    for name in ("mnist", "cifar10", "cifar100"):
        with pytest.raises(InvalidConfigError, match="`data` must"):
            load_dataset(DataConfig(name=name, root=str(tmp_path)))
    assert not made.exists()


def test_the_commands_that_only_show_a_sweep_run_no_code_that_it_names(
    tmp_path: Path, two_trials: Path
) -> None:
    folder, made = copy_of(two_trials, tmp_path / "out").folder, tmp_path / "made"
    code = tmp_path / "code.py"
    code.write_text(f"import os\nos.mkdir({str(made)!r})\ndef f(*a): ...\n")
    request = json.loads((folder / "sweep.json").read_text())
    request["request"]["space"] = f"{code}:f"
    request["request"]["base"]["model"]["name"] = f"{code}:f"
    (folder / "sweep.json").write_text(json.dumps(request))
    for words in (["front"], ["front", "--pick", "knee"], ["report"], ["explain", "0"]):
        assert main([words[0], str(folder), *words[1:]]) == 0
    assert not made.exists()


# Paths in files


def everything(folder: Path) -> dict[str, bytes]:
    """The files in a folder, by their paths."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


OUT = "../../../outside/x"


@pytest.mark.parametrize("old", ['"trial":"0000"', '"trial":"0001"'])
@pytest.mark.parametrize("new", [OUT, "/outside/x", "..", "\u00b2", ""])
def test_an_id_that_leads_out_of_the_folder_is_refused(
    tmp_path: Path, two_trials: Path, old: str, new: str
) -> None:
    folder = copy_of(two_trials, tmp_path / "a" / "b" / "out").folder
    journal = folder / "study.journal"
    text = journal.read_text()
    assert old in text
    journal.write_text(text.replace(old, f'"trial":{json.dumps(new)}'))
    before = everything(tmp_path)
    for words in (["front"], ["report"], ["explain", "0"], ["export", "--pick", "knee"]):
        more = ["--to", str(tmp_path / "model.pt")] if words[0] == "export" else []
        assert main([words[0], str(folder), *words[1:], *more]) == 2
    assert everything(tmp_path) == before


def test_only_the_id_of_a_sibling_that_leads_out_is_refused_too(
    tmp_path: Path, two_trials: Path
) -> None:
    folder = copy_of(two_trials, tmp_path / "out").folder
    journal = folder / "study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if '"sibling"' in line)
    lines[place] = lines[place].replace('"trial":"0000"', f'"trial":"{OUT}"')
    lines = [re.sub(',"checksum":"[0-9a-f]+"', "", line) for line in lines]
    journal.write_text("".join(lines))
    with pytest.raises(SweepFolderError, match=r"The id of a trial must be a number"):
        open_sweep(folder)


def test_names_in_other_files_of_a_sweep_are_no_paths(tmp_path: Path, two_trials: Path) -> None:
    folder = copy_of(two_trials, tmp_path / "a" / "b" / "out").folder
    request = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps({**request, "environment": {OUT: OUT}}))
    points = json.loads(next(folder.glob("trials/*/points.json")).read_text())["points"]
    rows = [{"repeat": 1, **point, "trial": OUT, "name": OUT} for point in points]
    write_sealed_json(folder / "repeats.json", {"repeats": rows})
    write_sealed_json(folder / "verified.json", {"points": []})
    assert main(["report", str(folder)]) == 0
    assert main(["explain", str(folder), OUT]) == 2
    assert {path.parts[0] for path in map(Path, everything(tmp_path))} == {"a"}
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "b"]
    assert list((tmp_path / "a" / "b").iterdir()) == [folder]


@pytest.mark.parametrize("name", ["../../outside", "weights/../../../outside", "/outside"])
def test_members_of_an_archive_are_not_unpacked(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a" / "b" / "weights.pt"
    path.parent.mkdir(parents=True)
    torch.save({"weight": torch.zeros(2)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "outside")
    before = everything(tmp_path)
    with contextlib.suppress(SweepFolderError):
        load_tensors(path)
    assert everything(tmp_path) == before


# Text in tables and on a terminal


def test_no_text_in_a_table_is_a_formula(two_trials: Path) -> None:
    """Cells are numbers and ids; the objectives, which users name, are identifiers."""
    tables = [two_trials / "front.csv", *(two_trials / "plots").glob("*.csv")]
    assert len(tables) == 3
    for table in tables:
        head, *rows = table.read_text().splitlines()
        assert all(name.isidentifier() for name in head.split(","))
        for cell in (cell for row in rows for cell in row.split(",")):
            assert cell in ("", "True", "False") or float(cell) >= 0
    for name in ("=cmd()", "+1", "-1", "@SUM(1)", "a b"):
        words = ["--set", f"evaluation.attacks.robust.name={name}"]
        assert main(["train", "--out", "nowhere", "--data", "digits", *words]) == 2


def is_harmless(text: str) -> bool:
    obeyed = [character for character in CONTROL if not character.isprintable()]
    return not any(character in text for character in obeyed) and "\\x1b]0;renamed" in text


@pytest.mark.parametrize(
    "words",
    [
        ["front", CONTROL],
        ["evaluate", CONTROL, "--data", "digits"],
        ["train", "--out", "nowhere", "--data", CONTROL],
        ["train", "--out", "nowhere", "--set", f"{CONTROL}=1"],
        [CONTROL],
    ],
)
def test_messages_show_control_characters(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert is_harmless(capsys.readouterr().err)


def test_results_show_control_characters(
    tmp_path: Path, two_trials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(two_trials, tmp_path / f"out{CONTROL}").folder
    assert main(["report", str(folder)]) == 0
    assert is_harmless(capsys.readouterr().out)
    to = tmp_path / f"model{CONTROL}.pt"
    assert main(["export", str(folder), "--pick", "knee", "--to", str(to)]) == 0
    assert is_harmless(capsys.readouterr().out)


def shown(follow: Callable[[Console, Results], object]) -> str:
    """What is written to a terminal; the sequences are those of a renaming alone."""
    console = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    follow(console, new_ledger().results)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("text", [CONTROL, f"[/b][link=file:///etc]{CONTROL}"])
def test_progress_and_warnings_show_control_characters(tmp_path: Path, text: str) -> None:
    failure = Failure(kind="error", reason=text)

    def lines(console: Console, results: Results) -> None:
        Lines(console).on_failed("0000", failure, results)

    def live(console: Console, results: Results) -> None:
        view = LiveView(console, results, SweepConfig(base=short(), trials=3))
        view.on_failed("0000", failure, results)
        console.print(view)

    def warning(console: Console, _: Results) -> None:
        with redirect_output(tmp_path / "log.txt", console):
            logging.getLogger("search").warning(text)

    for follow in (lines, live, warning):
        assert is_harmless(shown(follow).replace("\r", "") if follow is live else shown(follow))


# What a sweep writes


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_files_have_the_modes_that_the_user_asked_for_and_no_environment(
    tmp_path: Path, umask: int
) -> None:
    (tmp_path / "config.json").write_text(to_json(tiny_config()))
    words = ["sweep", "--config", tmp_path / "config.json", "--space", "smoke", "--local"]
    words += ["--trials", 2, "--out", tmp_path / "out", "--warmups", tmp_path / "store"]
    secret = "a-token-that-nobody-may-read"
    subprocess.run(
        [sys.executable, "-m", "search", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "SOME_TOKEN": secret},
        umask=umask,
        check=True,
        capture_output=True,
    )
    for path in (tmp_path / "out", *tmp_path.glob("out/**/*"), *tmp_path.glob("store/**/*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & umask == 0, path
        assert path.name == ".lock" or mode == (0o777 if path.is_dir() else 0o666) & ~umask, path
    for content in everything(tmp_path).values():
        assert secret.encode() not in content


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray")
def test_a_sweep_on_ray_reads_no_file_of_ray_and_keeps_to_itself(tmp_path: Path) -> None:
    """The folder has a name that is markup, and Ray's files there are replaced by code."""
    (tmp_path / "config.json").write_text(to_json(tiny_config()))
    out, made = tmp_path / "<img src=x onerror=ran=1>%20#?", tmp_path / "made"
    secret = "a-token-that-nobody-may-read"

    def search(*words: object) -> None:
        subprocess.run(
            [sys.executable, "-m", "search", *map(str, words), "--workers", "1"],
            cwd=ROOT,
            env={**os.environ, "SOME_TOKEN": secret},
            umask=0o077,
            check=True,
            capture_output=True,
        )

    config = ["--config", tmp_path / "config.json", "--space", "smoke"]
    search("sweep", *config, "--trials", 1, "--out", out)
    for path in (out, *out.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for path in out.glob("ray/**/*"):
        if path.is_file():
            path.write_bytes(pickled(made))
    for name in ("tuner.pkl", "trainable.pkl", "searcher-state-0.pkl"):
        (out / "ray" / name).write_bytes(pickled(made))
    search("resume", out, "--trials", 2)
    assert open_sweep(out).counts.completed == 2
    assert not made.exists()
    for content in everything(out).values():
        assert secret.encode() not in content
