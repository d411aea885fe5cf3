"""Bad input of all kinds: an exit code and one paragraph, nothing begun and nothing changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from generalist_core.config import ModelConfig
from generalist_core.models.build import build_model
from search.cli.main import main
from search.study.folder import open_sweep, record_request
from tests.helpers.small_sweep import copy_of

Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Bad:
    """A command, what it must say, and what is put into the folder `{here}` before.

    `{sweep}` is a copy of a finished sweep, `{out}` a folder that must not come to be.
    """

    command: str
    says: str
    files: Mapping[str, bytes | str] = field(default_factory=dict)
    spoil: Spoil | None = None


def sweep(options: str, says: str, **more: Any) -> Bad:
    """A sweep with these options."""
    return Bad(f"sweep --trials 2 --out {{out}} {options}", says, **more)


def train(options: str, says: str, **more: Any) -> Bad:
    """A training with these options."""
    return Bad(f"train --out {{out}} {options}", says, **more)


TINY = "--n-train 100 --n-validation 50 --width 2 --epochs 2"


def request_with(**changes: Any) -> Spoil:
    """Other fields in a sweep's request."""

    def spoil(sweep: Path) -> None:
        document = json.loads((sweep / "sweep.json").read_text())
        document["request"].update(changes)
        (sweep / "sweep.json").write_text(json.dumps(document))

    return spoil


def other_owner(**own: object) -> Spoil:
    """A sweep that was begun from Python, with parts of the caller's."""

    def spoil(sweep: Path) -> None:
        document = json.loads((sweep / "sweep.json").read_text())
        document["custom"].update(own)
        (sweep / "sweep.json").write_text(json.dumps(document))

    return spoil


def written(name: str, content: bytes) -> Spoil:
    """A file of a sweep with another content."""
    return lambda sweep: (sweep / name).write_bytes(content)


def replaced(name: str, old: bytes, new: bytes) -> Spoil:
    """A file of a sweep with some of its bytes replaced."""

    def spoil(sweep: Path) -> None:
        content = (sweep / name).read_bytes()
        assert old in content
        (sweep / name).write_bytes(content.replace(old, new))

    return spoil


def without(*names: str) -> Spoil:
    """A sweep in which files are missing."""

    def spoil(sweep: Path) -> None:
        for name in names:
            for path in sweep.glob(name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def journal_line_damaged(sweep: Path) -> None:
    lines = (sweep / "study.journal").read_bytes().splitlines(keepends=True)
    lines[3] = b'{"op_code": \n'
    (sweep / "study.journal").write_bytes(b"".join(lines))


def a_path_as_trial(sweep: Path) -> None:
    """By somebody who leaves out the checksums."""
    content = re.sub(rb',"checksum":"\w+"', b"", (sweep / "study.journal").read_bytes())
    (sweep / "study.journal").write_bytes(content.replace(b'"trial":"0001"', b'"trial":"../1"'))


def recorded_then(spoil: Spoil) -> Spoil:
    """A sweep whose study records the request, and what is done to it then."""

    def recorded(sweep: Path) -> None:
        record_request(sweep, open_sweep(sweep).ledger)
        spoil(sweep)

    return recorded


def no_trial_completed(sweep: Path) -> None:
    lines = (sweep / "study.journal").read_bytes().splitlines(keepends=True)
    (sweep / "study.journal").write_bytes(b"".join(lines[:2]))


def models_of_no_trial(sweep: Path) -> None:
    """Nothing from which weights could be mixed."""
    without("trials/*/averages.pt")(sweep)


SPACE_FILES = {
    "space.py": "def space(trial, base):\n    return base\n",
    "syntax.py": "def space(trial, base)\n    return base\n",
    "raises.py": "raise RuntimeError('at import')\n",
    "broken.py": "def space(trial, base):\n    return base.no_such_field\n",
    "none.py": "def space(trial, base):\n    return None\n",
    "arguments.py": "def space():\n    return None\n",
    "range.py": "def space(trial, base):\n    trial.suggest_float('a', 2, 1)\n    return base\n",
}
MODEL_FILES = {
    "broken.py": "def build(n_classes, shape):\n    raise RuntimeError('in build')\n",
    "none.py": "def build(n_classes, shape):\n    return None\n",
    "arguments.py": "def build():\n    return None\n",
    "outputs.py": "from torch import nn\n\ndef build(n_classes, shape):\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes + 1))\n",
    "inputs.py": "from torch import nn\n\ndef build(n_classes, shape):\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(7, n_classes))\n",
}

FLAGS = {
    "trials no number": Bad("sweep --trials many --out {out}", "--trials.*'many'"),
    "no trials": Bad("sweep --trials 0 --out {out}", "trials > 0"),
    "trials below 0": Bad("sweep --trials -3 --out {out}", "trials > 0"),
    "no --out": Bad("sweep --trials 2", "--out"),
    "unknown command": Bad("seep", "No such command 'seep'"),
    "unknown option": sweep("--trails 2", "--trails"),
    "unknown preset": sweep("--preset papers", "--preset.*'papers'"),
    "no workers": sweep("--workers 0", "workers > 0"),
    "no CPUs": sweep("--cpus-per-trial 0", "cpus_per_trial > 0"),
    "CPUs not finite": sweep("--cpus-per-trial nan", "`cpus_per_trial` must be"),
    "more GPUs than there are": sweep("--gpus-per-trial 1", "0 GPUs.*--device cpu"),
    "GPUs below 0": sweep("--gpus-per-trial -1", "gpus_per_trial.*-1"),
    "a grid of numbers without a step": sweep(
        "--sampler grid --space smoke --data digits",
        "must be choices.*continuous.*Give each a `step`",
    ),
    "several GPUs": sweep(
        "--gpus-per-trial 2", "`gpus_per_trial` must be in .*2.0. Give at most 1"
    ),
    "several GPUs, later": Bad("resume {sweep} --gpus-per-trial 2", "`gpus_per_trial` must be in"),
    "several GPUs to verify": Bad(
        "verify {sweep} --ray --gpus-per-trial 2", "`gpus_per_trial` must"
    ),
    "several GPUs to train": train("--gpus-per-trial 2", "No such option.*--gpus-per-trial"),
    "GPUs without Ray": sweep(
        "--local --gpus-per-trial 1",
        "`--gpus-per-trial` must be left out with --local, but got 1.*--device",
    ),
    "GPUs without Ray, later": Bad(
        "resume {sweep} --gpus-per-trial 0.5",
        "`--gpus-per-trial` must be left out with --local, but got 0.5",
        spoil=request_with(resources={"local": True}),
    ),
    "GPUs not finite": sweep("--gpus-per-trial inf", "gpus_per_trial.*inf"),
    "no time": sweep("--time-budget 0", "time_budget_s > 0"),
    "time not a number": sweep("--time-budget nan", "`time_budget_s` must be a finite number"),
    "repeats below 0": sweep("--repeats -1", "repeats >= 0"),
    "eta of 1": sweep("--eta 1", "eta > 1.*eta=1.0"),
    "no budget": sweep("--budget 0", "budget > 0"),
    "budget below 0": sweep("--budget -1e8", "budget > 0"),
    "budget not a number": Bad("sweep --budget nan --out {out}", "budget.*finite"),
    "unending budget": Bad("sweep --budget inf --out {out}", "budget.*finite"),
    "two local workers": sweep("--local --workers 2", "A local sweep must have one worker"),
    "rounds of any size": sweep("--deterministic", "--workers"),
    "no failures": sweep("--max-failures 0", "max_failures > 0"),
    "retries below 0": sweep("--max-retries -1", "max_retries >= 0"),
    "no time a trial": sweep("--trial-limit 0", "trial_s > 0"),
    "no time an epoch": sweep("--epoch-limit 0", "epoch_s > 0"),
    "unending epoch": sweep("--epoch-limit inf", "`epoch_s` must be a finite number"),
    "growth without cost": sweep("--min-growth 0.1", "--within-cost"),
    "growth of 1": sweep("--min-growth 1 --within-cost 9", "min_growth < 1"),
    "floor without value": sweep("--at-least natural", "natural=0.8"),
    "floor in percent": sweep("--at-least natural=80", "accuracy <= 1.*Did you mean 0.8\\?"),
    "floor above 1": sweep("--at-least natural=200", "accuracy=200.0. See"),
    "floor not a number": sweep("--at-least natural=nan", "`accuracy` must be a finite number"),
    "floor of nothing": sweep("--at-least clean=0.5", "`at_least` must be one of.*clean"),
    "storage": sweep("--storage nonsense", "must be an Optuna URL"),
    "storage nowhere": sweep("--storage sqlite:////no/where/a.db", "must be an Optuna URL"),
    "sampler": sweep("--sampler tpa", "tpe, nsga2.*'tpa'"),
    "no epochs": train("--epochs 0", "epochs > 0"),
    "no batch": train("--batch-size 0", "batch_size > 0"),
    "no width": train("--width 0", "width > 0"),
    "width of own model": train(
        "--model {here}/a.py:b --width 2", "built-in models", files={"a.py": ""}
    ),
    "radius in 255ths": train("--epsilon 8", "did you mean 8/255"),
    "radius below 0": train("--epsilon -0.1", "epsilon >= 0"),
    "radius not a number": train("--epsilon nan", "`epsilon` must be a finite number"),
    "device": train("--device tpu", "device.*tpu"),
    "field without value": train("--set epochs", "PATH=VALUE"),
    "unknown field": train("--set experts.natural.lr=1", "'lr'.*has"),
    "field of another type": train("--set epochs=2.5", "of type int.*2.5"),
    "field not a number": train(
        "--set experts.natural.optimizer.lr=NaN", "`lr` must be a finite number.*nan"
    ),
    "one complete expert": train('--set experts=[{{"name":"natural"}}]', "two or more experts"),
    "mixing ratio above 1": train("--set mixing.ratio.values=[1.2,0.4]", "mixing_ratio <= 1.*1.2"),
    "sync after the end": train("--set sync.start_epoch=99", "sync.start_epoch < epochs.*99"),
    "one expert": train("--set experts=[1]", "experts.0` must be an object.*1"),
}

FILES = {
    "config and preset": train(
        "--config a.json --preset paper", "must be given without `--preset`"
    ),
    "config not there": train("--config {here}/a.json", "a.json must exist, but: No such file"),
    "config a folder": train("--config {here}", "here must be a file, but: Is a directory"),
    "config below a file": train(
        "--config {here}/a/b.json",
        "b.json must be in a folder, but: Not a directory",
        files={"a": ""},
    ),
    "warm start not there": sweep("--warm-start {here}/a.csv", "a.csv must exist"),
    "config binary": train("--config {here}/a.json", "UTF-8", files={"a.json": b"\xff\xfe"}),
    "config torn": train("--config {here}/a.json", "JSON", files={"a.json": '{"epochs": 2'}),
    "config a list": train("--config {here}/a.json", "must be an object", files={"a.json": "[]"}),
    "config of a sweep": train("--config {sweep}/sweep.json", "known fields.*request"),
    "out in use": Bad("train --out {here}", "new or empty", files={"notes": "mine"}),
    "out a file": Bad("train --out {here}/a", "be writable", files={"a": "mine"}),
    "out under a file": Bad(
        "sweep --space smoke --out {here}/a/b", "be writable", files={"a": "mine"}
    ),
    "out another sweep": Bad("sweep --space smoke --out {sweep}", "new or empty"),
    "out not writable": Bad(f"train {TINY} --out /proc/out", "be writable"),
    "warm start binary": sweep("--warm-start {here}/a.csv", "UTF-8", files={"a.csv": b"\xff"}),
    "warm start without objectives": sweep(
        "--warm-start {here}/a.csv",
        "a column for each objective.*robust",
        files={"a.csv": "natural\n0.5\n"},
    ),
    "warm start above 1": sweep(
        "--warm-start {here}/a.csv",
        "natural <= 1.*'55'.*line 2",
        files={"a.csv": "natural,robust\n55,0.1\n"},
    ),
    "warm start of another space": sweep(
        "--space smoke --warm-start {here}/a.csv",
        "must be of this space.*line 2",
        files={"a.csv": "natural,robust,b\n0.5,0.1,7\n"},
    ),
    "warm start from no sweep": sweep("--warm-start {here}", "sweep.json must exist"),
    "warm-ups in a file": sweep(
        "--warmups {here}/a", "must be writable.*--warmups", files={"a": "mine"}
    ),
}

CODE = {
    "unknown space": sweep("--space ful", "smoke, mixing.*'ful'"),
    "space not there": sweep("--space {here}/a.py:space", "a.py"),
    "space without that function": sweep("--space {here}/space.py:spaces", "no function 'spaces'"),
    "space with a syntax error": sweep("--space {here}/syntax.py:space", "syntax.py.*expected"),
    "space that raises at import": sweep("--space {here}/raises.py:space", "raises.py.*at import"),
    "space that raises": sweep("--space {here}/broken.py:space", "broken.py.*no_such_field"),
    "space that returns nothing": sweep("--space {here}/none.py:space", "TrainConfig.*None"),
    "space with other arguments": sweep(
        "--space {here}/arguments.py:space", "arguments.py.*argument"
    ),
    "space with an empty range": sweep("--space {here}/range.py:space", "low <= high.*'a'"),
    "unknown model": train(
        "--model resnet",
        "`model` must be one of convnet, resnet18.*MODULE:FUNCTION, but .* mean resnet18\\?",
    ),
    "unknown model of torchvision": train(
        "--model torchvision:resnet5", "alexnet, .* mean resnet50\\?"
    ),
    "an optimizer in lower case": train("--set experts.natural.optimizer=adamw", "mean AdamW\\?"),
    "model not there": train("--model {here}/a.py:build", "a.py"),
    "model that raises": train("--model {here}/broken.py:build", "in build", files=MODEL_FILES),
    "not a model": train("--model {here}/none.py:build", "Module.*None", files=MODEL_FILES),
    "model with other arguments": train(
        "--model {here}/arguments.py:build", "argument", files=MODEL_FILES
    ),
    "model with other outputs": train(
        "--model {here}/outputs.py:build", "logits.*11", files=MODEL_FILES
    ),
    "model for other images": train("--model {here}/inputs.py:build", "shape", files=MODEL_FILES),
}

DATA = {
    "unknown data": train("--data cifer10", "cifar10.*cifer10.* mean cifar10\\?"),
    "data not there": train("--data cifar10 --data-root {here}", "--data-root.*--download"),
    "a folder without images": train("--data {here} --image-size 8", "train"),
    "a folder with empty classes": train(
        "--data {here} --image-size 8 --n-validation 1",
        "image",
        files={"train/a/x.txt": "", "train/b/x.txt": "", "test/a/x.txt": "", "test/b/x.txt": ""},
    ),
    "a torn image": train(
        "--data {here} --image-size 8 --n-validation 1",
        "png",
        files={
            f"{s}/{c}/{i}.png": b"\x89PNG" for s in ("train", "test") for c in "ab" for i in "12"
        },
    ),
    "images of no size": train("--image-size 0", "image_size > 0"),
    "no training images": train("--n-train 0", "n_train > 0"),
    "too many training images": train("--n-train 99999", "99999"),
    "no validation images": train("--n-validation 0", "n_validation > 0"),
    "too many validation images": train("--n-validation 5000", "5000 of.*--n-validation"),
}

WEIGHTS = f"evaluate {{here}}/a.pt {TINY.replace('--n-train 100 ', '').replace('--epochs 2', '')}"


def saved(state: object) -> bytes:
    """What `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def weights() -> bytes:
    """The state dict of the built-in model of width 4."""
    model = build_model(ModelConfig(width=4), 10, (1, 8, 8), seed=0)
    return saved(model.state_dict())


HARM = Path(tempfile.gettempdir()) / "harm-of-the-test-of-bad-input"


def program(kind: str) -> bytes:
    """A linear model as a program."""
    model, images, buffer = torch.nn.Linear(2, 2).eval(), torch.zeros(2, 2), io.BytesIO()
    if kind == "torch.export":
        torch.export.save(torch.export.export(model, (images,)), buffer)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
            torch.jit.save(torch.jit.trace(model, images), buffer)
    return buffer.getvalue()


class Harmful:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(HARM),)


CHECKPOINTS = {
    "weights not there": Bad(WEIGHTS, "there is no file.*a.pt"),
    "weights a folder": Bad(WEIGHTS.replace("a.pt", ""), "sweep.json must exist"),
    "weights torn": Bad(WEIGHTS, "only tensors", files={"a.pt": saved({})[:-40]}),
    "weights empty": Bad(WEIGHTS, "only tensors", files={"a.pt": b""}),
    "weights with code": Bad(WEIGHTS, "only tensors.*--trust", files={"a.pt": saved(Harmful())}),
    "weights a text": Bad(WEIGHTS, "only tensors", files={"a.pt": "natural"}),
    "weights a list": Bad(WEIGHTS, "a state dict.*list", files={"a.pt": saved([1])}),
    **{
        kind: Bad(
            WEIGHTS,
            f"must be a file of weights, but .*a.pt is a program of {kind}.*--trust",
            files={"a.pt": program(kind)},
        )
        for kind in ("TorchScript", "torch.export")
    },
    "weights of another model": Bad(
        WEIGHTS, "\\['a'\\] are unknown", files={"a.pt": saved({"a": torch.zeros(1)})}
    ),
    "weights trusted, and torn": Bad(
        f"{WEIGHTS} --trust", "complete file of torch", files={"a.pt": b"\x80"}
    ),
    "averages as weights": Bad(
        "evaluate {sweep}/trials/0000/averages.pt --width 4", "weights of the archi"
    ),
    "unknown attack": Bad(f"{WEIGHTS} --attacks pgd20", "pgd20"),
    "attack on no images": Bad(f"{WEIGHTS} --n-images 0", "n_images > 0"),
    "attack in no batches": Bad(f"{WEIGHTS} --attack-batch-size 0", "batch_size > 0"),
    "progress in a text": Bad(
        "evaluate {here}/model.pt --width 4 --attacks fgsm --out {here}/a.pt",
        "a.pt must be a stored evaluation",
        files={"a.pt": "natural", "model.pt": weights()},
    ),
}

SWEEPS = {
    f"{command}: no sweep": Bad(f"{command} {{here}}", "sweep.json must exist")
    for command in ("front", "report", "verify", "resume")
}
SWEEPS |= {
    "fewer trials than are done": Bad(
        "resume {sweep} --trials 1",
        "`trials` must be at least the number .*done, but got trials=1 and 2 are done",
    ),
    "a file as sweep": Bad("front {here}/a", "a/sweep.json", files={"a": ""}),
    "request torn": Bad("resume {sweep}", "be JSON", spoil=written("sweep.json", b'{"request')),
    "request binary": Bad("front {sweep}", "be JSON", spoil=written("sweep.json", b"\xff")),
    "request of something else": Bad(
        "front {sweep}", "a sweep's request", spoil=written("sweep.json", b"[]")
    ),
    "request with an unknown field": Bad(
        "resume {sweep}", "known fields.*colour", spoil=request_with(colour="red")
    ),
    "request with a bad value": Bad("resume {sweep}", "trials > 0", spoil=request_with(trials=-1)),
    "request with another seed": Bad(
        "front {sweep}",
        "but seed was 0 and is 7. Put back what was, or begin a new sweep",
        spoil=recorded_then(request_with(seed=7)),
    ),
    "request with another seed, accepted": Bad(
        "resume {sweep} --accept",
        "but trials was 2 and is 9; seed was 0 and is 7. Put back what was, or begin",
        spoil=recorded_then(request_with(seed=7, trials=9)),
    ),
    "request with more trials": Bad(
        "resume {sweep}",
        "trials was 2 and is 9. .*, or accept it: generalist-search resume .*sweep --accept",
        spoil=recorded_then(request_with(trials=9)),
    ),
    "journal gone": Bad("resume {sweep}", "hold the study.journal", spoil=without("study.journal")),
    "journal empty": Bad("resume {sweep}", "study 'small'", spoil=written("study.journal", b"")),
    "journal damaged": Bad("resume {sweep}", "line 4 is damaged", spoil=journal_line_damaged),
    "journal damaged, to be read": Bad(
        "front {sweep}", "line 4 is damaged", spoil=journal_line_damaged
    ),
    "journal of something else": Bad(
        "front {sweep}", "line 1 is damaged", spoil=written("study.journal", b"[]\n")
    ),
    "journal binary": Bad(
        "resume {sweep}", "line 1 is damaged", spoil=written("study.journal", b"\xff\n" * 3)
    ),
    "journal with an unknown operation": Bad(
        "front {sweep}", "journal", spoil=replaced("study.journal", b'"op_code":4', b'"op_code":99')
    ),
    "journal with an incomplete record": Bad(
        "front {sweep}", "journal", spoil=replaced("study.journal", b'"study_id"', b'"study"')
    ),
    "a trial named by a path": Bad(
        "resume {sweep}", "must be a number.*'../1'", spoil=a_path_as_trial
    ),
    "journal of another sweep": Bad(
        "resume {sweep}", "study 'large'", spoil=replaced("sweep.json", b'"small"', b'"large"')
    ),
    "resume for no trials": Bad("resume {sweep} --trials 0", "trials > 0"),
    "resume for nothing": Bad("resume {sweep} --budget 0", "budget > 0"),
    "resume with no workers": Bad("resume {sweep} --workers 0", "workers > 0"),
    "resume in no time": Bad("resume {sweep} --time-budget -1", "time_budget_s > 0"),
    "resume on no GPU": Bad("resume {sweep} --gpus-per-trial 1", "0 GPUs"),
    "resume into another space": Bad("resume {sweep} --space full", "--space"),
    "resume without the data": Bad(
        "resume {sweep}", "the data of the sweep.*data=", spoil=other_owner(data="1234")
    ),
    "resume without the model": Bad(
        "resume {sweep}", "the model of the sweep", spoil=other_owner(model=True)
    ),
    "resume where the space is gone": Bad(
        "resume {sweep}", "where.py", spoil=request_with(space="/no/where.py:space")
    ),
    "metrics damaged": Bad(
        "resume {sweep} --trials 3",
        "Line 1 of .*metrics.jsonl must be JSON",
        spoil=replaced("trials/0000/metrics.jsonl", b"{", b"<"),
    ),
    "weights of the front gone": Bad(
        "export {sweep} --pick knee --to m.pt", "averages.pt must hold", spoil=models_of_no_trial
    ),
    "verify nothing": Bad(
        "verify {sweep}", "a front to verify, but no trial has completed", spoil=no_trial_completed
    ),
    "verify by an unknown attack": Bad("verify {sweep} --attacks pgd20", "pgd20"),
    "verify by no attack": Bad("verify {sweep} --attacks ,", "attack"),
    "verify on no workers": Bad("verify {sweep} --ray --workers 0", "workers > 0"),
}

BAD = {**FLAGS, **FILES, **CODE, **DATA, **CHECKPOINTS, **SWEEPS}


@pytest.fixture(scope="module")
def finished(two_trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep that no test may change."""
    return copy_of(two_trials, tmp_path_factory.mktemp("finished") / "sweep").folder


def digests(folder: Path) -> dict[str, str]:
    """Each file's content, and each folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def prepare(bad: Bad, here: Path, finished: Path) -> list[str]:
    """The files that it needs; returns the command."""
    places = {name: here.parent / name for name in ("here", "sweep", "out")}
    here.mkdir()
    for name, content in {**SPACE_FILES, **bad.files}.items():
        if "space" not in bad.command and name not in bad.files:
            continue
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content.encode() if isinstance(content, str) else content)
    if "{sweep}" in bad.command:
        shutil.copytree(finished, places["sweep"])
        if bad.spoil is not None:
            bad.spoil(places["sweep"])
    return [part.format(**places) for part in bad.command.split()]


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_and_nothing_is_changed(
    name: str, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = BAD[name]
    command = prepare(bad, tmp_path / "here", finished)
    before = digests(tmp_path)
    code = main(command)
    printed = capsys.readouterr()
    told = " ".join(printed.err.split())
    assert code == 2
    assert printed.out == ""
    assert re.fullmatch(
        r"generalist-search( \w+)?: .*[.?)] See generalist-search( \w+)? --help\.",
        printed.err.strip(),
    )
    assert re.search(bad.says, told), told
    assert digests(tmp_path) == before
    assert not HARM.exists()


def test_an_unforeseen_error_is_reported_in_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise KeyError("colour")

    monkeypatch.setattr("search.open_sweep", fail)
    assert main(["front", "anywhere"]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(
        r"generalist-search: KeyError: 'colour' \(test_bad_input.py, line \d+\)\. "
        r"See all of it with --debug\.\n",
        told,
    )
    with pytest.raises(KeyError):
        main(["front", "anywhere", "--debug"])


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before Ray starts."""
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started."))
