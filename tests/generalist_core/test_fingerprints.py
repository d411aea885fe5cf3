"""Digests follow content and nothing else."""

from __future__ import annotations

import copy
import enum
import functools
import logging
import os
import re
import subprocess
import sys
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generalist_core.data.splits import Split
from generalist_core.fingerprints import (
    content_digest,
    file_digest,
    json_digest,
    model_fingerprint,
    source_digest,
    split_fingerprint,
    state_digest,
    tensor_bytes,
)
from generalist_core.user_code import load_callable
from tests.helpers.problems import tiny_split

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of `abc`, from FIPS 180-2, appendix B.1."""


def test_a_digest_is_the_sha_256_of_its_parts_in_order(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert content_digest("a", b"bc") == content_digest("abc") == ABC
    assert file_digest(tmp_path / "file") == ABC


def test_the_digest_of_json_ignores_the_order_of_keys_and_keeps_every_bit_of_a_float() -> None:
    assert json_digest({"a": 0.1, "b": [1]}) == json_digest({"b": [1], "a": 0.1})
    assert json_digest(0.1) != json_digest(0.1 + 2**-56)
    assert len(json_digest({})) == 32


X = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize(
    "other",
    [X.view(3, 2), X.t(), X.double(), X.int(), X.nextafter(X + 1), X * torch.tensor([-1, 1, 1])],
    ids=["shape", "order", "float64", "int32", "last bit", "sign of zero"],
)
def test_bytes_of_a_tensor_follow_type_shape_and_bits(other: Tensor) -> None:
    assert tensor_bytes(X) != tensor_bytes(other)


def test_bytes_of_a_tensor_do_not_follow_its_layout() -> None:
    assert tensor_bytes(X) == tensor_bytes(X.t().contiguous().t())


def test_the_digest_of_a_state_follows_parameters_buffers_and_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    others = [copy.deepcopy(model) for _ in range(3)]
    others[0][0].weight.data[0, 0] += 1
    others[1][1].running_mean += 1
    others[2] = nn.Sequential(nn.Identity(), *others[2])
    digests = {state_digest(each) for each in (model, *others)}
    assert len(digests) == 4
    assert state_digest(copy.deepcopy(model)) == state_digest(model.train()) in digests


def test_the_fingerprint_of_a_split_follows_images_labels_and_their_order() -> None:
    split = tiny_split(6)
    assert split_fingerprint(split) == split_fingerprint(split.take(torch.arange(6)))
    assert split_fingerprint(split) != split_fingerprint(split.take(torch.arange(6).flip(0)))
    others = (
        Split(images=split.images * 0.99, labels=split.labels),
        Split(images=split.images, labels=1 - split.labels),
    )
    assert split_fingerprint(split) not in map(split_fingerprint, others)


class Scaled(nn.Module):
    def __init__(self, scale: float, activation: Callable[..., Any] = torch.relu) -> None:
        super().__init__()
        self.scale, self.activation = scale, activation
        self.flatten = nn.Flatten()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.scale * self.flatten(x)[:, :2])


def frozen_linear() -> nn.Module:
    model = nn.Linear(2, 2)
    model.load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)})
    return model.requires_grad_(False)


def test_the_fingerprint_of_a_model_follows_tensors_attributes_and_functions() -> None:
    models = [
        Scaled(1.0),
        Scaled(2.0),
        Scaled(1.0, torch.tanh),
        nn.Dropout(0.1),
        nn.Dropout(0.2),
        frozen_linear(),
        frozen_linear().requires_grad_(True),
    ]
    prints = [model_fingerprint(model) for model in models]
    assert len(set(prints)) == len(prints)
    assert [model_fingerprint(copy.deepcopy(model)) for model in models] == prints


def test_what_is_noted_in_a_tensor_counts_unless_torchs_compiler_notes_it() -> None:
    models = [frozen_linear() for _ in range(3)]
    vars(models[1].weight)["_dynamo_static_input_type"] = "unguarded"
    vars(models[2].weight)["scale"] = 2.0
    plain, compiled, other = map(model_fingerprint, models)
    assert plain == compiled != other


def test_the_fingerprint_of_a_model_follows_its_file(tmp_path: Path) -> None:
    file, found = tmp_path / "net.py", []
    for factor in (1, 2, 1):
        file.write_text(
            "from torch import nn\n"
            "class Net(nn.Flatten):\n"
            f"    def forward(self, x): return {factor} * super().forward(x)[:, :2]\n"
            "def net(n_classes, shape): return Net()\n"
        )
        model = load_callable(f"{file}:net", what="model")(2, (1, 4, 4))
        assert isinstance(model, nn.Module)
        found.append(model_fingerprint(model))
    assert found[0] == found[2] != found[1]


def test_a_model_that_was_typed_in_has_a_fingerprint() -> None:
    found = []
    for factor in (1, 2, 1):
        scope: dict[str, Any] = {"nn": nn}
        code = f"class Net(nn.Flatten):\n    def forward(self, x): return {factor} * x\n"
        exec(compile(code, "<stdin>", "exec"), scope)
        found.append(model_fingerprint(scope["Net"]()))
    assert found[0] == found[2] != found[1]


class Holds(nn.Module):
    """A model that holds any value as an attribute."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value
        self.layer = nn.utils.skip_init(nn.Linear, 2, 2)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


class Record:
    def __init__(self, value: object) -> None:
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Doubles:
    factor = 2

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor * x


class Triples(Doubles):
    factor = 3


Pair = namedtuple("Pair", "first second")

FLAT, DOTTED = torch.zeros(80, 80), torch.zeros(80, 80)
DOTTED[40, 40] = 1
GRID = np.arange(6)


def times(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: factor * x


def hooked(factor: float) -> nn.Module:
    model = Holds(None)
    model.layer.register_forward_hook(lambda module, x, y: factor * y)
    return model


def tied(*, tie: bool) -> nn.Module:
    model = nn.Sequential(frozen_linear(), frozen_linear())
    if tie:
        model[1].weight = model[0].weight
    return model


def chosen(name: str) -> nn.Module:
    """A model that holds a set of one of two equal parts of its own."""
    model = Holds(None)
    model.first, model.second = nn.ReLU(), nn.ReLU()
    model.value = {getattr(model, name)}
    return model


DIFFERENT: dict[str, tuple[object, object]] = {
    "tensor": (FLAT, DOTTED),
    "tensor in a list": ([FLAT], [DOTTED]),
    "tensor in a tuple in a dict": ({"a": (1, FLAT)}, {"a": (1, DOTTED)}),
    "tensor in an object": (Record([FLAT]), Record([DOTTED])),
    "tensor in a slot": (Slotted(FLAT), Slotted(DOTTED)),
    "tensor in a namedtuple": (Pair(1, FLAT), Pair(1, DOTTED)),
    "tensor in a closure": (lambda: FLAT, lambda: DOTTED),
    "tensor in a partial": (functools.partial(times, FLAT), functools.partial(times, DOTTED)),
    "array": (FLAT.numpy(), DOTTED.numpy()),
    "array of another shape": (GRID.reshape(2, 3), GRID.reshape(3, 2)),
    "array of objects": (np.array([{1}, 2], dtype=object), np.array([{3}, 2], dtype=object)),
    "complex": (torch.tensor([1 + 1j]), torch.tensor([1 + 1j]).conj()),
    "empty": (torch.zeros(0), torch.zeros(0, 2)),
    "last bit": (0.1, 0.1 + 2**-56),
    "sign of zero": (0.0, -0.0),
    "int and float": (1, 1.0),
    "int and bool": (1, True),
    "large integers": (10**5000, 10**5000 + 1),
    "sets": ({"a", "b"}, {"a", "c"}),
    "nested sets": ({(1, frozenset("ab"))}, {(1, frozenset("ac"))}),
    "mapping": (OrderedDict(a=1), OrderedDict(a=2)),
    "functions": (times(1), lambda x: x),
    "captured": (times(1), times(2)),
    "default value": (lambda x=1: x, lambda x=2: x),
    "functions of torch": (torch.relu, torch.tanh),
    "functions of torch in Python": (F.max_pool2d, F.max_pool1d),
    "methods": (Record(1).__init__, Record(2).__init__),
    "classes": (Record, Slotted),
    "class attributes": (Doubles(), Triples()),
    "enumeration": (Colour.RED, Colour.BLUE),
    "dtype": (torch.float32, torch.float64),
    "device": (torch.device("cpu"), torch.device("meta")),
    "random states": (np.random.default_rng(0), np.random.default_rng(1)),
    "pattern": (re.compile("a"), re.compile("b")),
    "slice": (slice(1, 2), slice(1, 3)),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_models_that_hold_different_values_are_told_apart(one: object, other: object) -> None:
    prints = [model_fingerprint(Holds(value)) for value in (one, other)]
    assert prints[0] != prints[1]
    assert [model_fingerprint(Holds(value)) for value in (one, other)] == prints


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (hooked(1), hooked(2)),
        (tied(tie=False), tied(tie=True)),
        (chosen("first"), chosen("second")),
        (Holds(None), Holds(None).to(memory_format=torch.channels_last).eval()),
    ],
    ids=["hooks", "shared weights", "set of parts", "mode"],
)
def test_hooks_and_shared_parts_are_told_apart(one: nn.Module, other: nn.Module) -> None:
    assert model_fingerprint(one) != model_fingerprint(other)


def test_hooks_are_known_by_their_order_not_by_how_many_came_before() -> None:
    first = model_fingerprint(hooked(1))
    hooked(3)
    assert model_fingerprint(hooked(1)) == first


FACTOR = 1


def read_global(x: Tensor) -> Tensor:
    return FACTOR * x


def test_a_global_that_a_function_reads_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_fingerprint(Holds(read_global))
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2)
    assert model_fingerprint(Holds(read_global)) != before


@pytest.mark.parametrize(
    "value",
    [threading.Lock(), (i for i in ()), torch.empty(2, device="meta"), [Record(sys.stdout)]],
    ids=["lock", "generator", "meta tensor", "stream"],
)
def test_a_model_without_a_stable_form_has_none_and_the_log_says_so_once(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    model = Holds(value)
    with caplog.at_level(logging.WARNING):
        assert [model_fingerprint(model) for _ in range(2)] == [None, None]
    (record,) = caplog.records
    assert "Warm-ups are not shared" in record.message


def of_many_kinds() -> nn.Module:
    names = {f"layer{i}" for i in range(9)}
    others = {(1, frozenset("abc")), Colour.RED, Record, torch.relu}
    return Holds((names, others, times(2), Record(lambda x: x in {"a", "b", "c"})))


@pytest.mark.slow
def test_equal_models_have_one_fingerprint_in_every_process() -> None:
    code = (
        "from tests.generalist_core.test_fingerprints import model_fingerprint, of_many_kinds\n"
        "print(model_fingerprint(of_many_kinds()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == model_fingerprint(of_many_kinds())


def test_the_fingerprint_of_a_model_follows_what_its_file_imports(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import blocks\n")
    found = []
    for factor in (1, 2, 1):
        (tmp_path / "blocks.py").write_text(f"FACTOR = {factor}\n")
        scope: dict[str, Any] = {"nn": nn}
        code = "class Net(nn.Flatten):\n    def forward(self, x): return x\n"
        exec(compile(code, str(tmp_path / "net.py"), "exec"), scope)
        found.append(model_fingerprint(scope["Net"]()))
    assert found[0] == found[2] != found[1]


def test_the_digest_of_a_source_follows_its_local_imports_and_not_its_place(tmp_path: Path) -> None:
    for name, text in {"a": "X = 1", "b": "X = 1", "c": "X = 2"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text("import blocks")
        (tmp_path / name / "blocks.py").write_text(text)
    a, b, c = (source_digest(tmp_path / name / "net.py") for name in "abc")
    assert a == b != c
    alone = tmp_path / "a" / "blocks.py"
    assert source_digest(alone) == file_digest(alone)
