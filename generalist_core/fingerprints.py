"""Digests of content: files, tensors, models, data and JSON.

Torch is imported only where it is needed, so that digests of files do not wait for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from generalist_core.data.splits import Split


def content_digest(*parts: bytes | str) -> str:
    """The SHA-256 of the parts, one after another, as 64 hexadecimal digits."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part.encode() if isinstance(part, str) else part)
    return hashed.hexdigest()


def file_digest(path: Path) -> str:
    """The digest of a file's content."""
    return content_digest(path.read_bytes())


def json_digest(content: Any) -> str:
    """The first 128 bits of the digest of the content as JSON, in which floats are exact."""
    return content_digest(json.dumps(content, sort_keys=True))[:32]


def tensor_bytes(tensor: Tensor) -> bytes:
    """The type, the shape and every bit of a tensor."""
    import torch

    flat = tensor.detach().cpu().contiguous().view(-1)
    header = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return header + flat.view(torch.uint8).numpy().tobytes()


def state_digest(model: nn.Module) -> str:
    """A digest of every parameter and buffer, by name and by bit."""
    state = model.state_dict(keep_vars=True)
    return content_digest(*(part for name, t in state.items() for part in (name, tensor_bytes(t))))


def split_fingerprint(split: Split) -> str:
    """A digest of images and labels, in their order."""
    return content_digest(tensor_bytes(split.images), tensor_bytes(split.labels.long()))


def model_fingerprint(model: nn.Module) -> str:
    """A digest of a model: its tensors, its modules' attributes, and the code of their classes.

    The code is the whole file that defines a module's `forward`; the files that it imports are not
    included.
    """
    from torch import nn

    internals = vars(nn.Module()).keys()
    parts: list[bytes | str] = []
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        parts += [f"{name} {tensor.requires_grad}", tensor_bytes(tensor)]
    for name, module in model.named_modules():
        attributes = {k: v for k, v in vars(module).items() if k not in internals}
        shown = _ADDRESS.sub("", repr(attributes))
        parts.append(f"{name} {type(module).__qualname__} {shown}")
    codes = {getattr(type(module).forward, "__code__", None) for module in model.modules()}
    parts += sorted({_code_digest(code) for code in codes if code is not None})
    return content_digest(*parts)


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def _code_digest(code: CodeType) -> str:
    """The digest of the file that holds the code, or of the code itself if there is no file."""
    path = Path(code.co_filename)
    if path.is_file():
        return file_digest(path)
    constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
    return content_digest(code.co_code, repr((code.co_names, constants)))
