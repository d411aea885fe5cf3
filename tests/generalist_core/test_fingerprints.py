"""Digests follow content and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generalist_core.data.splits import Split
from generalist_core.fingerprints import (
    content_digest,
    file_digest,
    json_digest,
    model_fingerprint,
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
