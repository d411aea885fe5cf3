"""Wrong input generated for every option, every field and every file that a command reads.

Each is refused with code 2 in one line, and changes nothing; or it is right, and the work begins.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generalist_core.config import ModelConfig
from generalist_core.config.codec import to_dict
from generalist_core.models.build import build_model
from search.cli.main import main, program
from tests.helpers.command_line import TINY
from tests.helpers.tiny import tiny_config

pytestmark = pytest.mark.slow

COMMANDS = {
    "train": ("--out", "{root}/out", *TINY),
    "sweep": ("--out", "{root}/out", "--space", "smoke", "--local", *TINY),
    "resume": ("{root}/sweep", "--local"),
    "front": ("{root}/sweep",),
    "export": ("{root}/sweep", "--pick", "knee", "--to", "{root}/out"),
    "explain": ("{root}/sweep", "0000"),
    "report": ("{root}/sweep",),
    "list": ("{root}",),
    "trials": ("{root}/sweep",),
    "compare": ("{root}/sweep", "{root}/sweep"),
    "clean": ("{root}/sweep",),
    "verify": ("{root}/sweep", "--attacks", "fgsm", "--n-images", "5"),
    "evaluate": ("{root}/model.pt", "--width", "4", "--n-validation", "50", "--attacks", "fgsm"),
}
"""Each command with arguments that are right; the last value of an option wins."""

HUGE, ENDLESS = str(10**400), "9" * 5000
"""A whole number that no float can hold, and one that Python does not convert from text."""

NUMBERS = ("-1", "0", "nan", "-inf", "1e-320", "0.5", HUGE, f"-{HUGE}", ENDLESS, "1/0", "1/2/3")
WORDS = ("", " ", "no", "ε", "\x1b[2J\u202e", "\ud800", "a=b=c", "--", "-x", "%s{0}", "a\nb", "[b]")
PATHS = ("{root}", "none/none", "file", "file/below", "x" * 300, "..", "/", "/proc/none", "loop")

OWN = {
    "--storage": ("sqlite://h:p/x", "sqlite:///file", "a://h", "://", "redis://h", "sqlite:///x/y"),
    "--address": ("h", ":1", "h:", "h:-1", "localhost:1", "localhost:99999", "[::1", "/a/b:1"),
    "--space": (
        "loop.py:f",
        ".a:f",
        "..:f",
        "file:f",
        ":f",
        "a.py:",
        "a.py:b:c",
        "os:getcwd",
        "none.py:f",
    ),
    "--model": (
        "loop.py:f",
        ".a:f",
        "..:f",
        "file:f",
        ":f",
        "a.py:",
        "os:getcwd",
        "torchvision:",
        "torchvision:os",
    ),
    "--device": ("cuda:99", "cuda:-1", "cuda:", "meta", "cpu:7", "mps"),
    "--at-least": ("natural", "=1", "natural=", "natural=1e999", "robust=0.1=0.2"),
    "--pick": ("natural>=", ">=1", "max", "max x", "natural=-1", "0000-2", "9999-0.5", "0-0-0"),
    "--attacks": (",", "pgd-", "pgd-0", "pgd--1", f"pgd-{HUGE}", f"pgd-{ENDLESS}", "fgsm,fgsm"),
    "--set": ("=", "=1", "epochs", ".=1", "experts..lr=1", f"experts.{ENDLESS}=1", "experts.²=1"),
}
"""Values of a form that is almost that of the option."""


class BegunError(BaseException):
    """The input was right: the work of a command begins."""


def begin(*_: object, **__: object) -> Any:
    raise BegunError


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for work in (
        "search.api.train.train_in",
        "search.api.sweep._run",
        "search.cli.printing.print_profile",
        "generalist_core.evaluation.suite.SuiteEvaluation.__iter__",
        "ray.init",
    ):
        monkeypatch.setattr(work, begin)


@dataclass(kw_only=True)
class Place:
    """A folder with a finished sweep, a model and a file; it collects what commands did wrong."""

    root: Path
    finished: Path
    capsys: pytest.CaptureFixture[str]
    faults: list[str] = field(default_factory=list)

    def restore(self) -> None:
        """All files as they were."""
        for inside in self.root.iterdir():
            shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
        (self.root / "file").write_text("mine")
        for loop in ("loop", "loop.py"):
            (self.root / loop).symlink_to(loop)
        model = build_model(ModelConfig(width=4), 10, (1, 8, 8), seed=0)
        torch.save(model.state_dict(), self.root / "model.pt")
        shutil.copytree(self.finished, self.root / "sweep")

    def stamps(self) -> dict[str, tuple[int, int, int]]:
        """What changes with any write to a file, and every folder."""
        of = {str(path): path.lstat() for path in self.root.rglob("*")}
        return {
            name: (s.st_ino, *((s.st_size, s.st_mtime_ns) if Path(name).is_file() else (0, 0)))
            for name, s in of.items()
        }

    def run(self, command: str, *more: str) -> None:
        """Run a command with more arguments, and note what is wrong with what it did."""
        words = [w.replace("{root}", str(self.root)) for w in (command, *COMMANDS[command], *more)]
        before = self.stamps()
        self.capsys.readouterr()
        try:
            code = main(words)
        except BegunError:
            code = 0
        out, err = self.capsys.readouterr()
        if code == 0:
            self.restore()
            return
        said = r"generalist-search( \w+)?: [^\n]* See generalist-search( \w+)? --help\."
        law = r" must |Invalid value for '-|does not take a value|No such option"
        right = code == 2 and out == "" and re.fullmatch(said, err.strip()) and re.search(law, err)
        if not right or len(err) > 12_000 or self.stamps() != before:
            self.faults.append(f"{command} {[w[:60] for w in more]}: {code}, {err[:500]}")
            self.restore()


@pytest.fixture
def place(
    two_trials: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    made = Place(root=tmp_path / "place", finished=two_trials, capsys=capsys)
    made.root.mkdir()
    made.restore()
    monkeypatch.chdir(made.root)
    return made


OPTIONS = {
    f"{name} {option.opts[0]}": (name, option)
    for name, command in program.commands.items()
    for option in command.params
    if isinstance(option, click.Option)
}


LARGE = ("--epochs", "--image-size", "--width")
"""Options of which a large number asks for more than there is."""


def wrong_values(option: click.Option) -> tuple[str, ...]:
    """Values that an option of this type hardly takes."""
    own = OWN.get(option.opts[0], ())
    if option.is_flag:
        return ("1", "")
    if isinstance(option.type, click.Path):
        return (*WORDS, *PATHS, ENDLESS)
    if option.type in (click.INT, click.FLOAT) or option.opts[0] == "--epsilon":
        large = (str(10**9), str(2**63 - 1)) if option.opts[0] in LARGE else ()
        return (*large, *NUMBERS, *WORDS[:5], "/8")
    return (*own, *WORDS, *PATHS, *NUMBERS)


NOT_OF_TRAINING = ("--out", "--data-root", "--storage", "--warmups", "--time-budget")
"""Options that take most values, and that no rehearsal of a training depends on."""


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    command, option = OPTIONS[name]
    if option.opts[0] in NOT_OF_TRAINING:
        monkeypatch.setattr("search.running.preflight._rehearse", lambda *_: None)
    for value in wrong_values(option):
        place.run(command, f"{option.opts[0]}={value}")
    assert place.faults == []


def paths(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted path of every field and item below a JSON value."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        yield f"{prefix}{name}"
        if isinstance(value, dict | list):
            yield from paths(value, f"{prefix}{name}.")


CONFIG = to_dict(tiny_config())
FIELDS = [path for path in paths(CONFIG) if not path.endswith(".type")]

NESTED = tuple("[" * depth + "]" * depth for depth in (60, *range(800, 1000, 8), 10**5))
"""Around what Python can nest."""

VALUES = (
    *(
        "",
        "null",
        "true",
        "-1",
        "0",
        str(-(2**63)),
        "1e999",
        "NaN",
        HUGE,
        f"-{HUGE}",
        ENDLESS,
        '""',
        '"\\u0000"',
    ),
    *('"\\ud800"', "[]", "{}", "[[[1]]]", "[null]", '["a"]', "[NaN, 1]", '{"type": []}'),
    *('{"type": "x"}', '{"a": 1, "a": 2}', '{"type": {}, "a": null}', "1/0", "\x1b[2J", "../.."),
)


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_that_is_set(path: str, place: Place) -> None:
    for value in VALUES:
        place.run("train", f"--set={path}={value}")
    assert place.faults == []


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
JSON = st.recursive(
    SCALARS | st.sampled_from([10**400, -(10**400), "CutMix", "\x00", "\ud800", {"type": "PGD"}]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "name", "attack", "lr", ""]), inner, max_size=3)
    ),
    max_leaves=6,
)
"""Values of every type of JSON, some of them nested."""

GENERATED = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> str:
    """A JSON text in which a value is another, or is missing, twice there, or torn."""
    path = draw(st.sampled_from(list(paths(whole))))
    document = json.loads(json.dumps(whole))
    *way, last = path.split(".")
    parent = document
    for step in way:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]
    key = int(last) if isinstance(parent, list) else last
    how = draw(
        st.sampled_from(["other", "other", "other", "gone", "more", "twice", "torn", "deep"])
    )
    if how == "gone":
        del parent[key]
    elif how == "more" and isinstance(parent, dict):
        parent[draw(st.text(max_size=5))] = draw(JSON)
    else:
        parent[key] = draw(JSON) if how == "other" else "HERE"
    text = json.dumps(document)
    if how == "torn":
        return text[: draw(st.integers(0, len(text) - 1))]
    if how == "twice":
        return text.replace('"HERE"', '{"a": 1, "a": 2}')
    return text.replace('"HERE"', draw(st.sampled_from(NESTED)))


@GENERATED
@given(text=damaged(CONFIG))
def test_a_file_of_a_configuration(text: str, place: Place) -> None:
    (place.root / "file").write_text(text)
    place.run("train", "--config=file")
    assert place.faults == []


@pytest.mark.parametrize("command", ["front", "resume"])
def test_the_request_of_a_sweep(command: str, place: Place) -> None:
    request = json.loads((place.root / "sweep/sweep.json").read_text())

    @GENERATED
    @given(text=damaged({name: value for name, value in request.items() if name != "environment"}))
    def check(text: str) -> None:
        place.restore()
        (place.root / "sweep/sweep.json").write_text(text)
        place.run(command)
        assert place.faults == []

    check()


CONTENTS: dict[str, bytes | None] = {
    "empty": b"",
    "a line break": b"\n",
    "no UTF-8": b"\xff\xfe{}",
    "UTF-16": '{"name": 1}'.encode("utf-16"),
    "zeros": bytes(4096),
    "a list": b"[]",
    "null": b"null",
    "a text": b'"a"',
    "another object": b'{"a": {"b": [1, null]}}',
    "torn": b'{"request": {"base',
    "nested": b"[" * 5_000_000 + b"\n",
    "nested and closed": b"[" * 900 + b"]" * 900 + b"\n",
    "an endless number": b'{"format": ' + b"9" * 5000 + b"}",
    "a long line": b"a," * 500_000,
    "columns": b"name,natural,robust\n",
    "columns twice": b"name,natural,robust,robust\na,0.1,0.1,0.1\n",
    "numbers of no size": b"name,natural,robust\na,NaN,1e999\n",
    "an endless cell": b"name,natural,robust,x\na,0.5,0.1," + b"9" * 5000 + b"\n",
    "a nested cell": b"name,natural,robust,x\na,0.5,0.1," + b"[" * 90_000 + b"\n",
    "an open quote": b'name,natural,robust\n"a,0.5,0.1\n' + b"x" * 200_000,
    "zeros in cells": b"name,natural,robust\n\0,0.5,\0\n",
    "a pickle": b"\x80\x04K\x01.",
    "a ZIP": b"PK\5\6" + bytes(18),
    "code that exits": b"def f(*_):\n    raise SystemExit(3)\n",
    "code that exits at import": b"raise SystemExit(3)\n",
    "code nested": b"x = " + b"(" * 5000,
    "a folder": None,
}
"""What a file may hold instead."""

READERS = {
    "--config": ("file", "train", "--config=file"),
    "--config of evaluate": ("file", "evaluate", "--config=file"),
    "--space": ("f.py", "sweep", "--space=f.py:f"),
    "--model": ("f.py", "train", "--model=f.py:f"),
    "--warm-start": ("file", "sweep", "--warm-start=file"),
    "--warm-start, its request": ("sweep/sweep.json", "sweep", "--warm-start=sweep"),
    "--reference": ("file", "report", "--reference=file"),
    "MODEL": ("model.pt", "evaluate"),
    "MODEL trusted": ("model.pt", "evaluate", "--trust"),
    "--out of evaluate": ("file", "evaluate", "--out=file"),
    "request": ("sweep/sweep.json", "front"),
    "request to resume": ("sweep/sweep.json", "resume"),
    "journal": ("sweep/study.journal", "front"),
    "journal to resume": ("sweep/study.journal", "resume"),
    "metrics": ("sweep/trials/0000/metrics.jsonl", "resume", "--trials=3"),
    "metrics to explain": ("sweep/trials/0000/metrics.jsonl", "explain"),
    "a trial's configuration": ("sweep/trials/0000/config.json", "explain"),
    "averages": ("sweep/trials/0000/averages.pt", "export"),
    "averages to verify": ("sweep/trials/0000/averages.pt", "verify"),
    "images": ("images/train/a/1.png", "train", "--data=images", "--image-size=8"),
    "a folder for images": ("images/train", "train", "--data=images", "--image-size=8"),
    "verification, for a card": ("sweep/verified.json", "export"),
    "data": ("data/cifar-10-batches-py/data_batch_1", "train", "--data=cifar10"),
}
"""The files that commands read, and a command that does."""


@pytest.mark.parametrize("reader", READERS)
def test_a_file(reader: str, place: Place) -> None:
    name, *command = READERS[reader]
    for content in CONTENTS.values():
        place.restore()
        file = place.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        file.mkdir() if content is None else file.write_bytes(content)
        place.run(*command)
    assert place.faults == []
