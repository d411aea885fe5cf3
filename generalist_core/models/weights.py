"""Weights in files, as people save them, loaded into a model.

They may stand in a checkpoint, see `WRAPPERS`, and under longer names, see `PREFIXES`; the batch
counters of BatchNorm may be missing. The names in a model that normalises its images may lack the
`model.` that this puts before them.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generalist_core.fingerprints import content_digest
from generalist_core.models.state import averaged_tensors, derived_keys, load_state, named_tensors
from generalist_core.user_code import require_pinned
from generalist_core.validation import InvalidConfigError

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Where a checkpoint holds the weights of its model beside other things."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel, AveragedModel and torch.compile put before the names of a model's tensors."""

INNER = "model."
"""What `generalist_core.models.build.Normalised` puts before them."""


def tensors_in(content: bytes, path: Path) -> Any:
    """What a file of torch holds; weights only, so that no file can run code.

    Raises:
        InvalidConfigError: the file is incomplete, or holds more than tensors and plain values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that others wrote
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except EOFError as error:
        raise InvalidConfigError(f"{path} must hold only tensors, but is empty.") from error
    except pickle.UnpicklingError as error:
        raise InvalidConfigError(
            f"{path} must hold only tensors, but holds something else, or code."
        ) from error
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidConfigError(f"{path} must hold only tensors, but is damaged.") from error


def load_initial(network: nn.Module, path: Path, digest: str) -> None:
    """Load the weights that training begins from, of a file with that digest if one is given.

    Raises:
        InvalidConfigError: the file cannot be read, has changed, or holds other weights than those
            of the model, weights that are not finite, or another value in a buffer that is not
            averaged, such as an integer one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidConfigError(
            f"`init` must be a file of weights, but {path}: {error.strerror}."
        ) from error
    require_pinned(str(path), content_digest(content), digest)
    loaded = tensors_in(content, path)
    if not isinstance(loaded, Mapping):
        raise InvalidConfigError(
            f"{path} must hold a state dict, but holds {type(loaded).__name__}."
        )
    averaged, fixed = averaged_tensors(network), _fixed(network)
    load_named(network, loaded, path, "Give the architecture of the file: --model and --width.")
    if broken := [name for name, tensor in averaged.items() if not tensor.isfinite().all()]:
        raise InvalidConfigError(
            f"{path} must hold finite weights, but {', '.join(broken[:3])} is not."
        )
    now = _fixed(network)
    if other := [name for name in fixed if not torch.equal(fixed[name], now[name])]:
        raise InvalidConfigError(
            f"Buffers that are not averaged must be those of the architecture, but {path} has "
            f"another {', '.join(other[:3])}. Only averages of weights and buffers are kept."
        )


def _fixed(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers that are neither averaged nor recomputed nor count batches."""
    averaged = averaged_tensors(network)
    return {
        name: tensor.detach().clone()
        for name, module, key, tensor in named_tensors(network)
        if name not in averaged and key not in {*derived_keys(module), "num_batches_tracked"}
    }


def load_named(network: nn.Module, loaded: Mapping[str, Any], path: Path, cure: str) -> None:
    """Load the weights in what a file holds.

    Raises:
        InvalidConfigError: they are not those of the model; with the `cure`.
    """
    own = {**network.state_dict(), **averaged_tensors(network)}
    state = plain_state(loaded, set(own))
    law = f"{path} must hold weights of the architecture, but"
    for name in sorted(own.keys() & state.keys()):
        if (kind := _kind(state[name])) != _kind(own[name]):
            raise InvalidConfigError(
                f"{law} {name} is {kind} in it and {_kind(own[name])} in the model. {cure}"
            )
    try:
        load_state(network, state)
    except RuntimeError as error:
        raise InvalidConfigError(f"{law} {error}. {cure}") from error


def _kind(value: object) -> str:
    """What must be equal for a value to be loaded: the shape, and which numbers; not their bits."""
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    kinds = {"complex": value.is_complex(), "real": value.is_floating_point(), "whole": True}
    numbers = next(kind for kind, holds in kinds.items() if holds)
    return f"{tuple(value.shape)} of {numbers} numbers"


def plain_state(loaded: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """The weights in a checkpoint, under the `names` that the model itself gives them.

    The wrappers and prefixes of others are removed as long as no name is one of the model's. Then
    `INNER` is added if all of the model's begin with it.
    """
    for key in WRAPPERS:
        inside = loaded.get(key)
        if isinstance(inside, Mapping) and not names & set(loaded):
            loaded = inside
    state = {str(name): value for name, value in loaded.items()}
    if "n_averaged" not in names:
        state.pop("n_averaged", None)  # of torch's AveragedModel
    for _ in range(len(PREFIXES) * 2):
        for prefix in PREFIXES:
            if not names & set(state) and all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
    if names and not names & set(state) and all(name.startswith(INNER) for name in names):
        state = {f"{INNER}{name}": value for name, value in state.items()}
    return state
