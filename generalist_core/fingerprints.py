"""Hashes of content: of files, tensors, models, data and JSON."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from generalist_core.data.splits import Split


def digest(model: nn.Module) -> str:
    """A hash of every parameter and buffer, by name and by bit."""
    hashed = hashlib.sha256()
    for name, value in model.state_dict(keep_vars=True).items():
        hashed.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        hashed.update(as_bytes(value))
    return hashed.hexdigest()


def as_bytes(value: Tensor) -> bytes:
    """The bytes of a tensor of any type."""
    flat = value.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def split_fingerprint(split: Split) -> str:
    """A hash of images and labels, in their order."""
    hashed = hashlib.sha256()
    for tensor in (split.images, split.labels.long()):
        hashed.update(tensor_bytes(tensor))
    return hashed.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """A hash of what a model is: its tensors, its modules' attributes, and their classes' code.

    The code is the whole file that defines a module's `forward`; what that imports from further
    files is not seen.
    """
    hashed = hashlib.sha256()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        hashed.update(f"{name} {tensor.requires_grad}".encode())
        hashed.update(tensor_bytes(tensor))
    for name, module in model.named_modules():
        own = {k: v for k, v in vars(module).items() if k not in _MODULE_INTERNALS}
        hashed.update(f"{name} {type(module).__qualname__} {_ADDRESS.sub('', repr(own))}".encode())
    codes = {getattr(type(module).forward, "__code__", None) for module in model.modules()}
    for code in sorted({_code_digest(code) for code in codes if code is not None}):
        hashed.update(code)
    return hashed.hexdigest()


_MODULE_INTERNALS = vars(nn.Module()).keys()

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def _code_digest(code: CodeType) -> bytes:
    """A hash of the file that the code is in; of the code itself where it was typed in."""
    path = Path(code.co_filename)
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).digest()
    constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
    return hashlib.sha256(code.co_code + repr((code.co_names, constants)).encode()).digest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """Type, shape and every bit."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    header = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return header + flat.view(torch.uint8).numpy().tobytes()


def json_digest(content: Any) -> str:
    """128 bits of SHA-256 of the content's JSON, in which floats are exact."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
