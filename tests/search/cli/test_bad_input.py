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
from search.folders import SweepFolder
from search.lease import leased
from search.study.folder import open_sweep, record_request
from tests.helpers.small_sweep import copy_of

Spoil = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A command, what it must say, and what is put into the folder `{here}` before.

    `{sweep}` is a copy of a finished sweep, `{out}` a folder that must not come to be.
    """

    command: str
    says: str
    code: int = 2
    files: Mapping[str, bytes | str] = field(default_factory=dict)
    spoil: Spoil | None = None


SWEEP = "sweep --trials 2 --out {out}"
TRAIN = "train --out {out}"
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
    """Neither weights nor that from which they were mixed."""
    without("models/*", "trials/*/averages.pt")(sweep)


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
    "trials no number": Bad(command="sweep --trials many --out {out}", says="--trials.*'many'"),
    "no trials": Bad(command="sweep --trials 0 --out {out}", says="trials > 0"),
    "trials below 0": Bad(command="sweep --trials -3 --out {out}", says="trials > 0"),
    "no --out": Bad(command="sweep --trials 2", says="--out"),
    "unknown command": Bad(command="seep", says="No such command 'seep'"),
    "unknown option": Bad(command=f"{SWEEP} --trails 2", says="--trails"),
    "unknown preset": Bad(command=f"{SWEEP} --preset papers", says="--preset.*'papers'"),
    "no workers": Bad(command=f"{SWEEP} --workers 0", says="workers > 0"),
    "no CPUs": Bad(command=f"{SWEEP} --cpus-per-trial 0", says="cpus_per_trial > 0"),
    "CPUs not finite": Bad(
        command=f"{SWEEP} --cpus-per-trial nan", says="`cpus_per_trial` must be"
    ),
    "GPUs below 0": Bad(command=f"{SWEEP} --gpus-per-trial -1", says="gpus_per_trial.*-1"),
    "GPUs without Ray": Bad(
        command=f"{SWEEP} --local --gpus-per-trial 1",
        says="`--gpus-per-trial` must be left out with --local, but got 1.*--device",
    ),
    "GPUs without Ray, later": Bad(
        command="resume {sweep} --gpus-per-trial 0.5",
        spoil=request_with(resources={"local": True}),
        says="`--gpus-per-trial` must be left out with --local, but got 0.5",
    ),
    "GPUs not finite": Bad(command=f"{SWEEP} --gpus-per-trial inf", says="gpus_per_trial.*inf"),
    "no time": Bad(command=f"{SWEEP} --time-budget 0", says="time_budget_s > 0"),
    "time not a number": Bad(
        command=f"{SWEEP} --time-budget nan", says="`time_budget_s` must be a finite number"
    ),
    "repeats below 0": Bad(command=f"{SWEEP} --repeats -1", says="repeats >= 0"),
    "eta below 1": Bad(command=f"{SWEEP} --eta 0.5", says="eta > 1"),
    "no budget": Bad(command=f"{SWEEP} --budget 0", says="budget > 0"),
    "budget below 0": Bad(command=f"{SWEEP} --budget -1e8", says="budget > 0"),
    "budget not a number": Bad(command="sweep --budget nan --out {out}", says="budget.*finite"),
    "unending budget": Bad(command="sweep --budget inf --out {out}", says="budget.*finite"),
    "rounds of any size": Bad(command=f"{SWEEP} --deterministic", says="--workers"),
    "no failures": Bad(command=f"{SWEEP} --max-failures 0", says="max_failures > 0"),
    "retries below 0": Bad(command=f"{SWEEP} --max-retries -1", says="max_retries >= 0"),
    "no time a trial": Bad(command=f"{SWEEP} --trial-limit 0", says="trial_s > 0"),
    "no time an epoch": Bad(command=f"{SWEEP} --epoch-limit 0", says="epoch_s > 0"),
    "unending epoch": Bad(
        command=f"{SWEEP} --epoch-limit inf", says="`epoch_s` must be a finite number"
    ),
    "growth without cost": Bad(command=f"{SWEEP} --min-growth 0.1", says="--within-cost"),
    "growth of 1": Bad(command=f"{SWEEP} --min-growth 1 --within-cost 9", says="min_growth < 1"),
    "floor without value": Bad(command=f"{SWEEP} --at-least natural", says="natural=0.8"),
    "floor in percent": Bad(
        command=f"{SWEEP} --at-least natural=80", says="accuracy <= 1.*Did you mean 0.8\\?"
    ),
    "floor above 1": Bad(command=f"{SWEEP} --at-least natural=200", says="accuracy=200.0. See"),
    "floor not a number": Bad(
        command=f"{SWEEP} --at-least natural=nan", says="`accuracy` must be a finite number"
    ),
    "floor of nothing": Bad(
        command=f"{SWEEP} --at-least clean=0.5", says="`at_least` must be one of.*clean"
    ),
    "storage": Bad(command=f"{SWEEP} --storage nonsense", says="must be an Optuna URL"),
    "storage nowhere": Bad(
        command=f"{SWEEP} --storage sqlite:////no/where/a.db", says="must be an Optuna URL"
    ),
    "sampler": Bad(command=f"{SWEEP} --sampler tpa", says="tpe, nsga2.*'tpa'"),
    "no epochs": Bad(command=f"{TRAIN} --epochs 0", says="epochs > 0"),
    "no batch": Bad(command=f"{TRAIN} --batch-size 0", says="batch_size > 0"),
    "no width": Bad(command=f"{TRAIN} --width 0", says="width > 0"),
    "width of own model": Bad(
        command=f"{TRAIN} --model {{here}}/a.py:b --width 2",
        files={"a.py": ""},
        says="built-in models",
    ),
    "radius in 255ths": Bad(command=f"{TRAIN} --epsilon 8", says="did you mean 8/255"),
    "radius below 0": Bad(command=f"{TRAIN} --epsilon -0.1", says="epsilon >= 0"),
    "radius not a number": Bad(
        command=f"{TRAIN} --epsilon nan", says="`epsilon` must be a finite number"
    ),
    "device": Bad(command=f"{TRAIN} --device tpu", says="device.*tpu"),
    "field without value": Bad(command=f"{TRAIN} --set epochs", says="PATH=VALUE"),
    "unknown field": Bad(command=f"{TRAIN} --set experts.natural.lr=1", says="'lr'.*has"),
    "field of another type": Bad(command=f"{TRAIN} --set epochs=2.5", says="of type int.*2.5"),
    "field not a number": Bad(
        command=f"{TRAIN} --set experts.natural.optimizer.lr=NaN",
        says="`lr` must be a finite number.*nan",
    ),
    "one expert": Bad(command=f"{TRAIN} --set experts=[1]", says="experts.0` must be an object.*1"),
}

FILES = {
    "config not there": Bad(
        command=f"{TRAIN} --config {{here}}/a.json", says="a.json must exist, but: No such file"
    ),
    "config a folder": Bad(
        command=f"{TRAIN} --config {{here}}", says="here must be a file, but: Is a directory"
    ),
    "config below a file": Bad(
        command=f"{TRAIN} --config {{here}}/a/b.json",
        files={"a": ""},
        says="b.json must be in a folder, but: Not a directory",
    ),
    "warm start not there": Bad(
        command=f"{SWEEP} --warm-start {{here}}/a.csv", says="a.csv must exist"
    ),
    "config binary": Bad(
        command=f"{TRAIN} --config {{here}}/a.json", files={"a.json": b"\xff\xfe"}, says="UTF-8"
    ),
    "config torn": Bad(
        command=f"{TRAIN} --config {{here}}/a.json", files={"a.json": '{"epochs": 2'}, says="JSON"
    ),
    "config a list": Bad(
        command=f"{TRAIN} --config {{here}}/a.json",
        files={"a.json": "[]"},
        says="must be an object",
    ),
    "config of a sweep": Bad(
        command=f"{TRAIN} --config {{sweep}}/sweep.json", says="known fields.*request"
    ),
    "out in use": Bad(command="train --out {here}", files={"notes": "mine"}, says="new or empty"),
    "out a file": Bad(command="train --out {here}/a", files={"a": "mine"}, says="be writable"),
    "out under a file": Bad(
        command="sweep --space smoke --out {here}/a/b", files={"a": "mine"}, says="be writable"
    ),
    "out another sweep": Bad(command="sweep --space smoke --out {sweep}", says="new or empty"),
    "out not writable": Bad(command=f"train {TINY} --out /proc/out", says="be writable"),
    "warm start binary": Bad(
        command=f"{SWEEP} --warm-start {{here}}/a.csv", files={"a.csv": b"\xff"}, says="UTF-8"
    ),
    "warm start without objectives": Bad(
        command=f"{SWEEP} --warm-start {{here}}/a.csv",
        files={"a.csv": "natural\n0.5\n"},
        says="a column for each objective.*robust",
    ),
    "warm start above 1": Bad(
        command=f"{SWEEP} --warm-start {{here}}/a.csv",
        files={"a.csv": "natural,robust\n55,0.1\n"},
        says="natural <= 1.*'55'.*line 2",
    ),
    "warm start of another space": Bad(
        command=f"{SWEEP} --space smoke --warm-start {{here}}/a.csv",
        files={"a.csv": "natural,robust,b\n0.5,0.1,7\n"},
        says="must be of this space.*line 2",
    ),
    "warm start from no sweep": Bad(
        command=f"{SWEEP} --warm-start {{here}}", says="sweep.json must exist"
    ),
    "warm-ups in a file": Bad(
        command=f"{SWEEP} --warmups {{here}}/a",
        files={"a": "mine"},
        says="must be writable.*--warmups",
    ),
}

CODE = {
    "unknown space": Bad(command=f"{SWEEP} --space ful", says="smoke, mixing.*'ful'"),
    "space not there": Bad(command=f"{SWEEP} --space {{here}}/a.py:space", says="a.py"),
    "space without that function": Bad(
        command=f"{SWEEP} --space {{here}}/space.py:spaces", says="no function 'spaces'"
    ),
    "space with a syntax error": Bad(
        command=f"{SWEEP} --space {{here}}/syntax.py:space", says="syntax.py.*expected"
    ),
    "space that raises at import": Bad(
        command=f"{SWEEP} --space {{here}}/raises.py:space", says="raises.py.*at import"
    ),
    "space that raises": Bad(
        command=f"{SWEEP} --space {{here}}/broken.py:space", says="broken.py.*no_such_field"
    ),
    "space that returns nothing": Bad(
        command=f"{SWEEP} --space {{here}}/none.py:space", says="TrainConfig.*None"
    ),
    "space with other arguments": Bad(
        command=f"{SWEEP} --space {{here}}/arguments.py:space", says="arguments.py.*argument"
    ),
    "space with an empty range": Bad(
        command=f"{SWEEP} --space {{here}}/range.py:space", says="low <= high.*'a'"
    ),
    "unknown model": Bad(
        command=f"{TRAIN} --model resnet",
        says="`model` must be one of convnet, resnet18.*MODULE:FUNCTION, but .* mean resnet18\\?",
    ),
    "unknown model of torchvision": Bad(
        command=f"{TRAIN} --model torchvision:resnet5", says="alexnet, .* mean resnet50\\?"
    ),
    "unknown data": Bad(command=f"{TRAIN} --data cifer10", says="mean cifar10\\?"),
    "an optimizer in lower case": Bad(
        command=f"{TRAIN} --set experts.natural.optimizer=adamw", says="mean AdamW\\?"
    ),
    "model not there": Bad(command=f"{TRAIN} --model {{here}}/a.py:build", says="a.py"),
    "model that raises": Bad(
        command=f"{TRAIN} --model {{here}}/broken.py:build", files=MODEL_FILES, says="in build"
    ),
    "not a model": Bad(
        command=f"{TRAIN} --model {{here}}/none.py:build", files=MODEL_FILES, says="Module.*None"
    ),
    "model with other arguments": Bad(
        command=f"{TRAIN} --model {{here}}/arguments.py:build", files=MODEL_FILES, says="argument"
    ),
    "model with other outputs": Bad(
        command=f"{TRAIN} --model {{here}}/outputs.py:build", files=MODEL_FILES, says="logits.*11"
    ),
    "model for other images": Bad(
        command=f"{TRAIN} --model {{here}}/inputs.py:build", files=MODEL_FILES, says="shape"
    ),
}

DATA = {
    "unknown data": Bad(command=f"{TRAIN} --data cifer10", says="cifar10.*cifer10"),
    "data not there": Bad(
        command=f"{TRAIN} --data cifar10 --data-root {{here}}", says="--data-root.*--download"
    ),
    "a folder without images": Bad(command=f"{TRAIN} --data {{here}} --image-size 8", says="train"),
    "a folder with empty classes": Bad(
        command=f"{TRAIN} --data {{here}} --image-size 8 --n-validation 1",
        files={"train/a/x.txt": "", "train/b/x.txt": "", "test/a/x.txt": "", "test/b/x.txt": ""},
        says="image",
    ),
    "a torn image": Bad(
        command=f"{TRAIN} --data {{here}} --image-size 8 --n-validation 1",
        files={
            f"{s}/{c}/{i}.png": b"\x89PNG" for s in ("train", "test") for c in "ab" for i in "12"
        },
        says="png",
    ),
    "images of no size": Bad(command=f"{TRAIN} --image-size 0", says="image_size > 0"),
    "no training images": Bad(command=f"{TRAIN} --n-train 0", says="n_train > 0"),
    "too many training images": Bad(command=f"{TRAIN} --n-train 99999", says="99999"),
    "no validation images": Bad(command=f"{TRAIN} --n-validation 0", says="n_validation > 0"),
    "too many validation images": Bad(
        command=f"{TRAIN} --n-validation 5000", says="5000 of.*--n-validation"
    ),
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
    "weights not there": Bad(command=WEIGHTS, says="there is no file.*a.pt"),
    "weights a folder": Bad(command=WEIGHTS.replace("a.pt", ""), says="must be a file"),
    "weights torn": Bad(command=WEIGHTS, files={"a.pt": saved({})[:-40]}, says="only tensors"),
    "weights empty": Bad(command=WEIGHTS, files={"a.pt": b""}, says="only tensors"),
    "weights with code": Bad(
        command=WEIGHTS, files={"a.pt": saved(Harmful())}, says="only tensors.*--trust"
    ),
    "weights a text": Bad(command=WEIGHTS, files={"a.pt": "natural"}, says="only tensors"),
    "weights a list": Bad(command=WEIGHTS, files={"a.pt": saved([1])}, says="a state dict.*list"),
    **{
        f"{kind}{trust}": Bad(
            command=f"{WEIGHTS}{trust}",
            files={"a.pt": program(kind)},
            says=f"must be a file of weights, but .*a.pt is a program of {kind}.*--format weights",
        )
        for kind in ("TorchScript", "torch.export")
        for trust in ("", " --trust")
    },
    "weights of another model": Bad(
        command=WEIGHTS, files={"a.pt": saved({"a": torch.zeros(1)})}, says="\\['a'\\] are unknown"
    ),
    "weights trusted, and torn": Bad(
        command=f"{WEIGHTS} --trust", files={"a.pt": b"\x80"}, says="complete file of torch"
    ),
    "averages as weights": Bad(
        command="evaluate {sweep}/trials/0000/averages.pt --width 4", says="weights of the archi"
    ),
    "unknown attack": Bad(command=f"{WEIGHTS} --attacks pgd20", says="pgd20"),
    "attack on no images": Bad(command=f"{WEIGHTS} --n-images 0", says="n_images > 0"),
    "attack in no batches": Bad(command=f"{WEIGHTS} --attack-batch-size 0", says="batch_size > 0"),
    "progress in a text": Bad(
        command="evaluate {here}/model.pt --width 4 --attacks fgsm --out {here}/a.pt",
        files={"a.pt": "natural", "model.pt": weights()},
        says="a.pt must be a stored evaluation",
    ),
}

SWEEPS = {
    f"{command}: no sweep": Bad(command=f"{command} {{here}}", says="sweep.json must exist")
    for command in ("front", "report", "verify", "resume")
}
SWEEPS |= {
    "fewer trials than are done": Bad(
        command="resume {sweep} --trials 1",
        says="`trials` must be at least the number .*done, but got trials=1 and 2 are done",
    ),
    "a file as sweep": Bad(command="front {here}/a", files={"a": ""}, says="a/sweep.json"),
    "request torn": Bad(
        command="resume {sweep}", spoil=written("sweep.json", b'{"request'), says="be JSON"
    ),
    "request binary": Bad(
        command="front {sweep}", spoil=written("sweep.json", b"\xff"), says="be JSON"
    ),
    "request of something else": Bad(
        command="front {sweep}", spoil=written("sweep.json", b"[]"), says="a sweep's request"
    ),
    "request with an unknown field": Bad(
        command="resume {sweep}", spoil=request_with(colour="red"), says="known fields.*colour"
    ),
    "request with a bad value": Bad(
        command="resume {sweep}", spoil=request_with(trials=-1), says="trials > 0"
    ),
    "request with another seed": Bad(
        command="front {sweep}",
        spoil=recorded_then(request_with(seed=7)),
        says="but seed was 0 and is 7. Put back what was, or begin a new sweep",
    ),
    "request with another seed, accepted": Bad(
        command="resume {sweep} --accept",
        spoil=recorded_then(request_with(seed=7, trials=9)),
        says="but trials was 2 and is 9; seed was 0 and is 7. Put back what was, or begin",
    ),
    "request with more trials": Bad(
        command="resume {sweep}",
        spoil=recorded_then(request_with(trials=9)),
        says="trials was 2 and is 9. .*, or accept it: generalist-search resume .*sweep --accept",
    ),
    "journal gone": Bad(
        command="resume {sweep}", spoil=without("study.journal"), says="hold the study.journal"
    ),
    "journal empty": Bad(
        command="resume {sweep}", spoil=written("study.journal", b""), says="study 'small'"
    ),
    "journal damaged": Bad(
        command="resume {sweep}", spoil=journal_line_damaged, says="line 4 is damaged"
    ),
    "journal damaged, to be read": Bad(
        command="front {sweep}", spoil=journal_line_damaged, says="line 4 is damaged"
    ),
    "journal of something else": Bad(
        command="front {sweep}", spoil=written("study.journal", b"[]\n"), says="line 1 is damaged"
    ),
    "journal binary": Bad(
        command="resume {sweep}",
        spoil=written("study.journal", b"\xff\n" * 3),
        says="line 1 is damaged",
    ),
    "journal with an unknown operation": Bad(
        command="front {sweep}",
        spoil=replaced("study.journal", b'"op_code":4', b'"op_code":99'),
        says="journal",
    ),
    "journal with an incomplete record": Bad(
        command="front {sweep}",
        spoil=replaced("study.journal", b'"study_id"', b'"study"'),
        says="journal",
    ),
    "a trial named by a path": Bad(
        command="resume {sweep}",
        spoil=a_path_as_trial,
        says="must be a number.*'../1'",
    ),
    "journal of another sweep": Bad(
        command="resume {sweep}",
        spoil=replaced("sweep.json", b'"small"', b'"large"'),
        says="study 'large'",
    ),
    "resume for no trials": Bad(command="resume {sweep} --trials 0", says="trials > 0"),
    "resume for nothing": Bad(command="resume {sweep} --budget 0", says="budget > 0"),
    "resume with no workers": Bad(command="resume {sweep} --workers 0", says="workers > 0"),
    "resume in no time": Bad(command="resume {sweep} --time-budget -1", says="time_budget_s > 0"),
    "resume on no GPU": Bad(command="resume {sweep} --gpus-per-trial 1", says="0 GPUs"),
    "resume into another space": Bad(command="resume {sweep} --space full", says="--space"),
    "resume without the data": Bad(
        command="resume {sweep}",
        spoil=other_owner(data="1234"),
        says="the data of the sweep.*data=",
    ),
    "resume without the model": Bad(
        command="resume {sweep}", spoil=other_owner(model=True), says="the model of the sweep"
    ),
    "resume where the space is gone": Bad(
        command="resume {sweep}", spoil=request_with(space="/no/where.py:space"), says="where.py"
    ),
    "metrics damaged": Bad(
        command="resume {sweep} --trials 3",
        spoil=replaced("trials/0000/metrics.jsonl", b"{", b"<"),
        says="Line 1 of .*metrics.jsonl must be JSON",
    ),
    "weights of the front gone": Bad(
        command="export {sweep} --pick knee --to m.pt",
        spoil=models_of_no_trial,
        says="averages.pt must hold",
    ),
    "verify nothing": Bad(
        command="verify {sweep}",
        spoil=no_trial_completed,
        says="a front to verify, but no trial has completed",
    ),
    "verify by an unknown attack": Bad(command="verify {sweep} --attacks pgd20", says="pgd20"),
    "verify by no attack": Bad(command="verify {sweep} --attacks ,", says="attack"),
    "verify on no workers": Bad(command="verify {sweep} --ray --workers 0", says="workers > 0"),
}

BAD = {**FLAGS, **FILES, **CODE, **DATA, **CHECKPOINTS, **SWEEPS}
LOG = os.environ.get("BAD_INPUT_LOG")
"""A file to note what each of them printed."""


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
    if LOG is not None:
        with Path(LOG).open("a") as file:
            file.write(f"{name} | {bad.command} | {code} | {told.replace(str(tmp_path), '')}\n")
    assert code == bad.code
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


def test_a_sweep_that_another_process_runs_is_left_alone(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    shutil.copytree(finished, sweep)
    before = digests(sweep)
    with leased(SweepFolder(sweep).lease, waits=False):
        assert main(["resume", str(sweep)]) == 2
    assert "one process at a time" in capsys.readouterr().err
    assert digests(sweep) == before


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before Ray starts."""
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started."))
