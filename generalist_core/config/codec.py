"""The lossless JSON form of configurations, and access to their fields by dotted path.

A dataclass becomes an object of its fields; where several classes are allowed, `type` names the
class. A step of a path such as `experts.robust.optimizer.SGD.lr` is a field, an index, or the name
of an expert or attack. It may also name a class, which must then be the class of the value there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import typing
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

from generalist_core.config import Ratio, TrainConfig
from generalist_core.config.fields import alternatives, field_types, is_union
from generalist_core.validation import InvalidConfigError, did_you_mean, excerpt

T = TypeVar("T")


def to_json(config: object) -> str:
    """The JSON text of a configuration dataclass, with its fields in their declared order."""
    return json.dumps(to_dict(config), indent=2)


def to_dict(config: object) -> dict[str, Any]:
    """The JSON object of a configuration dataclass."""
    assert dataclasses.is_dataclass(config)
    encoded: dict[str, Any] = _encode(config, type(config))
    return encoded


def from_json(text: str, kind: type[T]) -> T:
    """The dataclass of class `kind` that `text` describes.

    Raises:
        InvalidConfigError: the text is not JSON, or not of this class; the message names the field.
    """
    return from_dict(parsed(text), kind)


def parsed(text: str) -> Any:
    """The JSON value of a text.

    Raises:
        InvalidConfigError: the text is not JSON, or names a field of an object twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InvalidConfigError(f"A configuration must be JSON, but got: {error}.") from error


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := [name for name, n in Counter(name for name, _ in fields).items() if n > 1]:
        raise ValueError(f"{', '.join(twice)} more than once in an object")
    return dict(fields)


def from_dict(data: Any, kind: type[T]) -> T:
    """The dataclass of class `kind` that a JSON object describes; raises as `from_json` does."""
    decoded: T = _decode(data, kind, kind.__name__)
    return decoded


def load_config(path: str | Path) -> TrainConfig:
    """Read a TrainConfig from a JSON file."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidConfigError(
            f"A configuration must be UTF-8 text, but {path} is not."
        ) from error
    return from_json(text, TrainConfig)


def value_at(config: Any, path: str) -> Any:
    """The value at a dotted path, of a field or a property; for a dataclass, the class's name."""
    for step in path.split("."):
        config = _child(config, step, path)
    return type(config).__name__ if dataclasses.is_dataclass(config) else config


def replace_at(config: T, path: str, value: Any) -> T:
    """A copy of `config` with the JSON-like `value` at a dotted path.

    Raises:
        InvalidConfigError: there is no such field, or it does not take this value.
    """
    return replace_all(config, [(path, value)])


def replace_all(config: T, assignments: Iterable[tuple[str, Any]]) -> T:
    """A copy of `config` with a JSON-like value at each of several dotted paths.

    Later assignments win. Each part is built once, with all its new fields, so that fields whose
    law binds them together can be changed together. A value may also be a function, which makes it
    from the annotation of the field.

    Raises:
        InvalidConfigError: there is no such field, or it does not take this value.
    """
    kind = type(config)
    changes = [_Change(path.split("."), value, path) for path, value in assignments]
    replaced: T = _replaced(config, kind, changes, kind.__name__)
    return replaced


class _Change(NamedTuple):
    """A value to be set at the end of `steps`, which are what is left of `path`."""

    steps: list[str]
    value: Any
    path: str


def _replaced(node: Any, kind: Any, changes: list[_Change], where: str) -> Any:
    """`node` with the changes made; only what lies on their ways is replaced."""
    whole = [number for number, change in enumerate(changes) if not change.steps]
    if whole:
        value, changes = changes[whole[-1]].value, changes[whole[-1] + 1 :]
        value = value(kind) if callable(value) else value
        node = _decode(_with_fields(value, kind, changes), kind, where)
    below: dict[str | int, list[_Change]] = {}
    for steps, value, path in changes:
        names_class = len(steps) > 1 and type(node).__name__ == steps[0]
        step, *rest = steps[1:] if names_class else steps
        below.setdefault(_key(node, step, path), []).append(_Change(rest, value, path))
    if not below:
        return node
    if not isinstance(node, tuple):
        hints = field_types(cast(type, type(node)))
        fields = {
            key: _replaced(getattr(node, key), hints[key], inside, f"{where}.{key}")
            for key, inside in cast(dict[str, list[_Change]], below).items()
        }
        return dataclasses.replace(node, **fields)
    item, items = _item_kind(_without_none(kind, node)), list(node)
    for index, inside in cast(dict[int, list[_Change]], below).items():
        items[index] = _replaced(items[index], item, inside, f"{where}.{index}")
    return tuple(items)


def _with_fields(value: Any, kind: Any, changes: list[_Change]) -> Any:
    """The JSON value of a dataclass, with the fields that are set after it; it may lack them."""
    name = value if isinstance(value, str) else value.get("type") if isinstance(value, dict) else 0
    members = [m for m in alternatives(kind) if getattr(m, "__name__", None) == name]
    if not changes or not members or not dataclasses.is_dataclass(members[0]):
        return value
    hints = field_types(cast(type, members[0]))
    fields = {"type": name} if isinstance(value, str) else dict(value)
    for steps, given, _ in changes:
        field = steps[-1]
        if steps[:-1] in ([], [name]) and field in hints:
            fields[field] = given(hints[field]) if callable(given) else given
    return fields


def _child(node: Any, step: str, path: str) -> Any:
    if dataclasses.is_dataclass(node) and type(node).__name__ == step:
        return node
    if isinstance(getattr(type(node), step, None), property):
        return getattr(node, step)
    key = _key(node, step, path)
    return node[key] if isinstance(key, int) else getattr(node, key)


def _key(node: Any, step: str, path: str) -> str | int:
    """The field name or the index that one step of a path means at `node`."""
    if dataclasses.is_dataclass(node):
        names = [field.name for field in dataclasses.fields(node)]
        if step not in names:
            raise InvalidConfigError(
                f"A path must name fields, but got {step!r} in {path!r}. {type(node).__name__} has "
                f"{', '.join(names)}.{did_you_mean(step, names)}"
            )
        return step
    if not isinstance(node, tuple):
        raise InvalidConfigError(f"A path must end at a value, but got {step!r} in {path!r}.")
    names = [getattr(item, "name", str(index)) for index, item in enumerate(node)]
    if step in names:
        return names.index(step)
    if step not in map(str, range(len(node))):
        raise InvalidConfigError(
            f"A path must name items, but got {step!r} in {path!r}. There is {', '.join(names)}."
        )
    return int(step)


def _encode(value: Any, kind: Any) -> Any:
    kind = _without_none(kind, value)
    if dataclasses.is_dataclass(value):
        hints = field_types(cast(type, type(value)))
        fields = {name: _encode(getattr(value, name), hint) for name, hint in hints.items()}
        return {"type": type(value).__name__, **fields} if is_union(kind) else fields
    if isinstance(value, tuple):
        return [_encode(item, _item_kind(kind)) for item in value]
    return float(value) if kind in (float, Ratio) else value


def _decode(data: Any, kind: Any, where: str) -> Any:
    kind = _without_none(kind, data)
    if data is None and kind is type(None):
        return None
    if is_union(kind):
        return _decode_union(data, kind, where)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(data, kind, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(data, list | tuple):
            raise InvalidConfigError(f"`{where}` must be a list, but got {excerpt(data)}.")
        return tuple(_decode(item, _item_kind(kind), f"{where}.{i}") for i, item in enumerate(data))
    return _decode_scalar(data, kind, where)


def _decode_fields(data: Any, kind: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise InvalidConfigError(f"`{where}` must be an object, but got {excerpt(data)}.")
    hints = field_types(kind)
    unknown = sorted(name for name in data if name not in hints and data[name] != kind.__name__)
    if unknown:
        raise InvalidConfigError(
            f"`{where}` must have only known fields, but got {', '.join(unknown)}. "
            f"{kind.__name__} has {', '.join(hints)}."
        )
    required = {f.name for f in dataclasses.fields(kind) if _is_required(f)}
    missing = sorted(required - set(data))
    if missing:
        raise InvalidConfigError(f"`{where}` must be complete, but lacks {', '.join(missing)}.")
    values = {
        name: _decode(data[name], hints[name], f"{where}.{name}") for name in data if name in hints
    }
    return kind(**values)


def _decode_union(data: Any, kind: Any, where: str) -> Any:
    """Choose the member of a union: by `type` among dataclasses, else by the shape of `data`."""
    members = typing.get_args(kind)
    if not any(dataclasses.is_dataclass(member) for member in members):
        fits = [
            m for m in members if (typing.get_origin(m) is tuple) == isinstance(data, list | tuple)
        ]
        return _decode(data, fits[0], where)
    by_name = {member.__name__: member for member in members}
    name = data if isinstance(data, str) else data.get("type") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in by_name:
        raise InvalidConfigError(
            f"`{where}.type` must be one of {', '.join(by_name)}, but got {excerpt(name)}."
            f"{did_you_mean(name, by_name)}"
        )
    return _decode_fields({} if isinstance(data, str) else data, by_name[name], where)


def _decode_scalar(data: Any, kind: Any, where: str) -> Any:
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if data not in choices:
            raise InvalidConfigError(
                f"`{where}` must be one of {', '.join(choices)}, but got {excerpt(data)}."
                f"{did_you_mean(data, choices)}"
            )
        return data
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        with contextlib.suppress(OverflowError):
            return float(data)
    if type(data) is not kind:
        raise InvalidConfigError(
            f"`{where}` must be of type {kind.__name__}, but got {excerpt(data)}."
        )
    return data


def _without_none(kind: Any, value: Any) -> Any:
    """The annotation that applies to `value`: X or None where `kind` is `X | None`."""
    if not is_union(kind) or type(None) not in typing.get_args(kind):
        return kind
    if value is None:
        return type(None)
    return functools.reduce(
        lambda a, b: a | b, (m for m in typing.get_args(kind) if m is not type(None))
    )


def _item_kind(kind: Any) -> Any:
    """The annotation of a tuple's items; if `kind` is a union (Ratio), of its tuple member."""
    if is_union(kind):
        kind = next(m for m in typing.get_args(kind) if typing.get_origin(m) is tuple)
    return typing.get_args(kind)[0]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
