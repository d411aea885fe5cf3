"""Training begins from weights as people save them, or is refused with the reason."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generalist_core.config import ModelConfig
from generalist_core.fingerprints import file_digest
from generalist_core.models.build import build_model
from generalist_core.models.weights import load_initial, plain_state
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import same_bits
from tests.helpers.saved_weights import SAVED


def net(seed: int = 0, **model: Any) -> nn.Module:
    return build_model(ModelConfig(**{"width": 2, **model}), 10, (1, 8, 8), seed=seed)


def test_names_that_are_the_models_own_stay() -> None:
    own = {"module.weight": 1, "n_averaged": 2}
    assert plain_state(own, set(own)) == own
    nested = {"state_dict": {"weight": 1}, "model": 3}
    assert plain_state(nested, {"model"}) == nested
    assert plain_state({"weight": 1}, {"model.weight"}) == {"model.weight": 1}
    assert plain_state({"weight": 1}, {"model.weight", "bias"}) == {"weight": 1}


@pytest.mark.parametrize("normalises", [False, True])
@pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)
def test_a_model_begins_from_weights_as_people_save_them(
    save: Callable[[nn.Module], Any], normalises: bool, tmp_path: Path
) -> None:
    """Also where the model normalises its images, which the one in the file left to its data."""
    model, file = net(seed=1), tmp_path / "weights.pt"
    model.train()(torch.rand(4, 1, 8, 8))
    torch.save(save(model), file)
    begun = net(mean=(0.5,), std=(0.2,)) if normalises else net()
    load_initial(begun, file, file_digest(file))
    assert same_bits([*begun.state_dict().values()], [*model.state_dict().values()])


class Counting(nn.Module):
    """A buffer that is not averaged, which training leaves alone."""

    places: Tensor

    def __init__(self, place: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("places", torch.tensor(place))

    def forward(self, x: Tensor) -> Any:
        return self.linear(x.roll(int(self.places), 1))


def broken(**changes: Any) -> Callable[[Path], None]:
    return lambda path: torch.save({**net().state_dict(), **changes}, path)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (
        lambda path: None,
        r"`init` must be a file of weights, but /\S+: No such file or directory\.$",
    ),
    "folder": (
        lambda path: path.mkdir(),
        r"`init` must be a file of weights, but /\S+: Is a directory\.$",
    ),
    "empty": (lambda path: path.write_bytes(b"") and None, "only tensors, but is empty"),
    "text": (lambda path: path.write_text("hello") and None, "must hold only tensors"),
    "code": (lambda path: torch.save(net(), path), "holds something else, or code"),
    "list": (lambda path: torch.save([torch.ones(1)], path), "a state dict, but holds list"),
    "other width": (
        lambda path: torch.save(net(width=3).state_dict(), path),
        r"but 0\.weight is \(3, 1, 3, 3\) of real numbers in it and \(2, 1, 3, 3\) of .* Give",
    ),
    "another name": (broken(other=torch.ones(1)), r"\['other'\] are unknown"),
    "fewer": (lambda path: torch.save({"0.weight": torch.ones(2, 1, 3, 3)}, path), "are missing"),
    "none": (lambda path: torch.save({}, path), "are missing"),
    "a number": (broken(**{"11.bias": 3}), "11.bias is of type int in it and "),
    "quantised": (
        broken(**{"11.bias": torch.ones(10, dtype=torch.int8)}),
        r"11.bias is \(10,\) of whole numbers in it and \(10,\) of real numbers in the model",
    ),
    "complex": (broken(**{"11.bias": torch.ones(10) * 1j}), "of complex numbers in it"),
    "numbered": (lambda path: torch.save({1: torch.ones(1)}, path), r"\['1'\] are unknown"),
    "not finite": (broken(**{"11.bias": torch.full((10,), torch.nan)}), "but 11.bias is not"),
    "statistics": (broken(**{"1.running_var": torch.tensor([1.0, torch.inf])}), "1.running_var is"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_other_weights_is_refused(name: str, tmp_path: Path) -> None:
    write, message = REFUSED[name]
    write(tmp_path / "weights.pt")
    with pytest.raises(InvalidConfigError, match=message):
        load_initial(net(), tmp_path / "weights.pt", "")


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(net().state_dict(), file)
    digest = file_digest(file)
    load_initial(net(), file, digest)
    torch.save(net(seed=1).state_dict(), file)
    with pytest.raises(InvalidConfigError, match=r"weights\.pt` must be as it was .* has changed"):
        load_initial(net(), file, digest)


def test_a_buffer_that_no_average_keeps_must_be_the_architectures(tmp_path: Path) -> None:
    """Else what is released would be another function than what was trained."""
    file = tmp_path / "weights.pt"
    for place, says in ((0, None), (1, "but .* has another places")):
        torch.save(Counting(place).state_dict(), file)
        begun = Counting()
        if says is None:
            load_initial(begun, file, "")
        else:
            with pytest.raises(InvalidConfigError, match=says):
                load_initial(copy.deepcopy(begun), file, "")
