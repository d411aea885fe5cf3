"""Digests of content: files, tensors, models, data and JSON.

Torch is imported only where it is needed, so that digests of files do not wait for it.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import json
import os
import re
import struct
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist_core.once import warn_once
from generalist_core.source_files import is_installed, source_files

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


def source_digest(path: Path) -> str:
    """The digest of a source file, with the files that it imports from its own folder."""
    first, *others = source_files(path)
    if not others:
        return file_digest(first)
    names = [(os.path.relpath(file, first.parent), file_digest(file)) for file in (first, *others)]
    return content_digest(json.dumps(names))


def json_digest(content: Any) -> str:
    """The first 128 bits of the digest of the content as JSON, in which floats are exact."""
    return content_digest(json.dumps(content, sort_keys=True))[:32]


def tensor_bytes(tensor: Tensor) -> bytes:
    """The type, the shape and every bit of a tensor."""
    import torch

    plain = tensor.detach().resolve_conj().resolve_neg()
    flat = plain.cpu().contiguous().view(-1)
    header = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return header + flat.view(torch.uint8).numpy().tobytes()


def state_digest(model: nn.Module) -> str:
    """A digest of every parameter and buffer, by name and by bit."""
    state = model.state_dict(keep_vars=True)
    return content_digest(*(part for name, t in state.items() for part in (name, tensor_bytes(t))))


def split_fingerprint(split: Split) -> str:
    """A digest of images and labels, in their order."""
    return content_digest(tensor_bytes(split.images), tensor_bytes(split.labels.long()))


def images_digest(train: Split, validation: Split) -> str:
    """The first 128 bits of a digest of the images that a training sees, and of their labels."""
    return content_digest(split_fingerprint(train), split_fingerprint(validation))[:32]


def model_fingerprint(model: nn.Module) -> str | None:
    """A digest of a model: its tensors, attributes and hooks, and the code that it runs.

    Values are taken by type and by every bit, sets without their order, and functions by their
    code, with the files that this imports from its own folder and the globals that it reads. Equal
    models have equal digests in every process. A model that holds something without such a form,
    such as a lock or an open file, has none, and the log says so once.
    """
    encoder = _Encoder(model)
    try:
        encoder.add(model)
    except (UnstableValueError, RecursionError) as error:
        warn_once(f"Warm-ups are not shared, as the model has no fingerprint: {error}.")
        return None
    return encoder.digest()


class UnstableValueError(ValueError):
    """A value without a form that is the same in every process."""


_ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"",
    type(...): lambda _: b"",
    bool: lambda value: bytes([value]),
    int: lambda value: hex(value).encode(),
    float: lambda value: struct.pack("<d", value),
    complex: lambda value: struct.pack("<dd", value.real, value.imag),
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: value,
}

_NO_CODE = (types.GetSetDescriptorType, types.MemberDescriptorType)


class _Encoder:
    """Hashes values piece by piece; what appears again is hashed as the place of the first time."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hashed = hashlib.sha256()
        self._seen: dict[int, tuple[int, object]] = {}
        self._files: dict[str, str] = {}
        parts = (*model.named_modules(), *model.named_parameters(), *model.named_buffers())
        self._parts = {id(part): name for name, part in parts}

    def digest(self) -> str:
        return self._hashed.hexdigest()

    def add(self, value: Any) -> None:
        """Hash any value.

        Raises:
            UnstableValueError: it has no stable form.
        """
        kind = type(value)
        if kind in _ATOMS:
            self._put(kind.__name__, _ATOMS[kind](value))
        elif kind is tuple:
            self._add_items("tuple", value)
        elif isinstance(value, frozenset | set):
            self._add_set(value)
        elif id(value) in self._seen:
            self._put("seen", str(self._seen[id(value)][0]))
        else:
            # the value is kept, since the id of one that is gone may be given to another
            self._seen[id(value)] = len(self._seen), value
            self._add_new(value)

    def _put(self, kind: str, content: bytes | str = b"") -> None:
        data = content.encode() if isinstance(content, str) else content
        self._hashed.update(f"{kind} {len(data)} ".encode() + data)

    def _add_items(self, kind: str, items: Iterable[Any]) -> None:
        listed = list(items)
        self._put(kind, str(len(listed)))
        for item in listed:
            self.add(item)

    def _add_new(self, value: Any) -> None:
        import numpy as np
        from torch import Tensor, nn

        if isinstance(value, nn.Module):
            self._add_module(value)
        elif isinstance(value, Tensor):
            self._add_tensor(value)
        elif type(value) is np.ndarray and not value.dtype.hasobject:
            self._put("array", f"{value.dtype.descr} {value.shape}")
            self._put("bytes", value.tobytes())
        elif type(value) is list:
            self._add_items("list", value)
        elif type(value) is dict:
            self._add_items("dict", value.items())
        elif isinstance(value, enum.Enum):
            self._add_items("enum", (type(value), value.name, value.value))
        elif not self._add_program(value):
            self._add_object(value)

    def _add_program(self, value: Any) -> bool:
        """Hash what is code, and say whether it was."""
        match value:
            case type():
                self._add_class(value)
            case types.FunctionType():
                self._add_function(value)
            case types.CodeType():
                self._add_code(value)
            case types.BuiltinFunctionType():
                self._put("builtin", f"{value.__module__} {value.__qualname__}")
                is_free = isinstance(value.__self__, type | types.ModuleType | None)
                self.add(None if is_free else value.__self__)
            case types.MethodType():
                self._add_items("method", (value.__func__, value.__self__))
            case types.ModuleType():
                self._put("module", value.__name__)
                self._put("file", self._file(getattr(value, "__file__", None) or ""))
            case staticmethod() | classmethod():
                self._add_items(type(value).__name__, (value.__func__,))
            case property():
                self._add_items("property", (value.fget, value.fset))
            case functools.cached_property():
                self._add_items("cached_property", (value.func,))
            case _:
                return False
        return True

    def _add_set(self, values: set[Any] | frozenset[Any]) -> None:
        """Elements by their own digests, sorted; parts of the model by their names."""
        digests = []
        for value in values:
            if id(value) in self._parts:
                digests.append(self._parts[id(value)])
            else:
                encoder = _Encoder(self._model)
                encoder.add(value)
                digests.append(encoder.digest())
        self._add_items("set", (type(values), *sorted(digests), getattr(values, "__dict__", None)))

    def _add_module(self, module: nn.Module) -> None:
        """The class and all attributes; hooks by their order, as their keys count a process's."""
        from torch import nn

        self.add(type(module))
        attributes = dict(vars(module))
        for name in vars(nn.Module()).keys() & attributes.keys():
            if match := _HOOKS.fullmatch(name):
                hooks, keys = attributes[name], list(vars(module)[match[1]])
                flags = [keys.index(key) for key in hooks if key in keys]
                attributes[name] = flags if match[2] else list(hooks.values())
        self._add_items("attributes", attributes.items())

    def _add_tensor(self, tensor: Tensor) -> None:
        try:
            self._put("tensor", tensor_bytes(tensor))
            self._add_items("is", (type(tensor), tensor.requires_grad, tuple(tensor.stride())))
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            raise UnstableValueError(f"a tensor has no bytes to read ({error})") from error
        noted = vars(tensor).items()  # among it what torch's compiler notes as it goes
        self._add_items("notes", (item for item in noted if not item[0].startswith("_dynamo")))

    def _add_class(self, cls: type) -> None:
        """An installed class by its name and file; another by its bases and all that it defines."""
        self._put("class", cls.__qualname__)
        if _is_installed_class(cls):
            package = sys.modules.get(cls.__module__.partition(".")[0])
            version = getattr(package, "__version__", "")
            self._put("installed", f"{cls.__module__} {version} {self._file(_file_of(cls))}")
            return
        self._add_items("bases", cls.__bases__)
        for name, value in vars(cls).items():
            is_code = isinstance(value, types.FunctionType | classmethod | staticmethod | property)
            is_machinery = name.startswith("_") and name.endswith("_") and not is_code
            # what `__init__` made is in the object
            if name in ("__init__", "_abc_impl") or is_machinery or isinstance(value, _NO_CODE):
                continue
            self._add_items("defines", (name, value))

    def _add_function(self, function: types.FunctionType) -> None:
        """Code, default values, what it has captured, and the globals that it reads."""
        code = function.__code__
        held: list[object] = [code, function.__defaults__, function.__kwdefaults__]
        for cell in function.__closure__ or ():
            try:
                held.append(cell.cell_contents)
            except ValueError:  # not yet assigned
                held.append("")
        self._add_items("function", (*held, vars(function)))
        if not is_installed(Path(code.co_filename)):
            known = function.__globals__
            names = [name for name in dict.fromkeys(_names_in(code)) if name in known]
            self._add_items("globals", ((name, known[name]) for name in names))

    def _add_code(self, code: types.CodeType) -> None:
        self._put("code", code.co_code)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self._add_items("code", (code.co_qualname, code.co_flags, code.co_consts, *names))
        self._put("file", self._file(code.co_filename))

    def _add_object(self, value: Any) -> None:
        """What copies an object: how it is made, and its state."""
        try:
            registered = copyreg.dispatch_table.get(type(value))
            reduced = registered(value) if registered else value.__reduce_ex__(4)
        except Exception as error:
            raise UnstableValueError(
                f"a value of type {type(value).__qualname__} has no stable form ({error})"
            ) from error
        if isinstance(reduced, str):
            self._put("global", f"{type(value).__module__} {type(value).__qualname__} {reduced}")
            self.add(getattr(value, "__wrapped__", None))
            return
        made, arguments, *rest = reduced
        state, items, pairs = (*rest, None, None, None)[:3]
        self._add_items("object", (made, arguments, state))
        self._add_items("items", items or ())
        self._add_items("pairs", pairs or ())

    def _file(self, name: str) -> str:
        """The digest of a source file with what it imports beside it; empty without a file."""
        if name not in self._files:
            path = Path(name)
            self._files[name] = source_digest(path) if path.is_file() else ""
        return self._files[name]


_HOOKS = re.compile(r"(_(?:\w+_)?hooks)(_with_kwargs|_always_called)?")
"""The attributes of modules in which hooks stand under a number that counts the process's hooks."""


def _file_of(cls: type) -> str:
    """The file of the module that a class says it is from; empty if there is none."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


def _is_installed_class(cls: type) -> bool:
    """Whether the class is part of Python or of an installed package, and is found there."""
    file = _file_of(cls)
    is_there = is_installed(Path(file)) if file else cls.__module__ in sys.builtin_module_names
    return is_there and _named(sys.modules.get(cls.__module__), cls.__qualname__) is cls


def _named(module: object, qualname: str) -> object:
    """What stands under a dotted name in a module; None if there is nothing."""
    for name in qualname.split("."):
        module = getattr(module, name, None)
    return module


def _names_in(code: types.CodeType) -> Iterator[str]:
    """The names of globals and attributes in a function and in those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)
