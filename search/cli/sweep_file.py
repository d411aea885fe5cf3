"""A file that describes a sweep: options by their names, a whole request, or both.

In YAML or JSON, `trials: 40` stands for `--trials 40`, and `request` holds what `sweep.json` does,
so that this is such a file, too. Options win over the request, and the command line over the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import yaml

from generalist_core.config.codec import from_dict, parsed, to_dict
from generalist_core.validation import InvalidConfigError, did_you_mean, excerpt
from search.cli.option_groups import option, switch
from search.config import SweepConfig

BESIDE_A_REQUEST = ("request", "format", "study", "custom", "pins", "environment")
"""What `sweep.json` holds."""

NO_KEYS = ("file", "print_file", "dry_run")
"""Options that do not describe a sweep."""

_PREFIX = re.compile(r"^\w+?__")


@dataclass(frozen=True, kw_only=True)
class Described:
    """A request in a file, and the digest of the images that its sweep used, if it has begun."""

    request: SweepConfig
    images: str | None


def _take_file(context: click.Context, _: click.Parameter, path: Path | None) -> Described | None:
    """Take the options of a file as defaults; returns the request in it."""
    if path is None:
        return None
    document = read_document(path)
    keys = {_key(p.opts[0]): p for p in context.command.params if _is_key(p)}
    described = {_key(str(name)): value for name, value in document.items()}
    if "request" in document:
        described = {k: v for k, v in described.items() if k not in BESIDE_A_REQUEST}
    for name in described:
        if name not in keys:
            raise InvalidConfigError(
                f"{path} must name options of the command, or a request, but names {excerpt(name)}."
                f"{did_you_mean(name, [*keys, 'request'])}"
            )
    context.default_map = {
        str(keys[name].name): _as_typed(value, keys[name], path)
        for name, value in described.items()
        if value is not None
    }
    return _request(document, path) if "request" in document else None


@dataclass(frozen=True, kw_only=True)
class DescriptionOptions:
    """A sweep as a file, and a look at it before it begins."""

    TITLE = "Description"

    file: Described | None = option(
        "take options from this file, YAML or JSON, or a sweep.json; other options win over it",
        "FILE",
        type=click.Path(path_type=Path),
        is_eager=True,
        callback=_take_file,
    )
    print_file: bool = switch("print such a file of the whole request; begin nothing")
    dry_run: bool = switch("print the request, its space, cost and disk; rehearse; begin nothing")


def read_document(path: Path) -> dict[str, Any]:
    """The content of a file of JSON, if it is named so, or of YAML.

    Raises:
        InvalidConfigError: the file is no object of JSON or YAML, or names a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = parsed(text) if path.suffix == ".json" else yaml.load(text, _Loader)  # noqa: S506
        json.dumps(document)  # YAML has dates, bytes, sets and circles, too
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InvalidConfigError(f"{path} must be YAML or JSON, but: {error}") from error
    if not isinstance(document, dict):
        raise InvalidConfigError(
            f"{path} must hold options by their names, but holds {excerpt(document)}. Write them "
            "as in `trials: 40`."
        )
    return document


def file_text(request: SweepConfig) -> str:
    """The file that describes a request, as YAML; where its study is stored is left out."""
    from search.study.folder import FORMAT

    stored = to_dict(request)
    del stored["storage"]  # it belongs to one sweep, and may hold a password
    document = {"format": FORMAT, "request": stored}
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _request(document: Mapping[str, Any], path: Path) -> Described:
    """The request in a file, without its storage."""
    from search.study.folder import FORMAT

    if document.get("format", FORMAT) != FORMAT:
        raise InvalidConfigError(
            f"{path} must be of format {FORMAT}, but is of format {document['format']}. Use the "
            "version that wrote it."
        )
    custom = document.get("custom") or {}
    if not isinstance(custom, dict) or any(custom.get(part) for part in ("data", "model")):
        raise InvalidConfigError(
            f"{path} must describe all of a sweep, but the data or the model of this one were "
            "passed from Python. Begin it from there."
        )
    try:
        request = replace(from_dict(document["request"], SweepConfig), storage=None)
    except InvalidConfigError as error:
        raise InvalidConfigError(f"{path} must hold a valid request, but: {error}") from error
    pins = document.get("pins")
    return Described(request=request, images=pins.get("images") if isinstance(pins, dict) else None)


def _is_key(parameter: click.Parameter) -> bool:
    return _PREFIX.sub("", str(parameter.name)) not in NO_KEYS


def _key(name: str) -> str:
    return name.removeprefix("--").replace("_", "-")


def _as_typed(value: Any, parameter: click.Parameter, path: Path) -> Any:
    """The value as it would be typed, so that the command line reads it as it reads all others."""
    is_flag = isinstance(parameter, click.Option) and parameter.is_flag
    if parameter.multiple and isinstance(value, dict):
        return [f"{name}={_word(inside)}" for name, inside in value.items()]
    if parameter.multiple:
        return [_word(inside) for inside in (value if isinstance(value, list) else [value])]
    if is_flag == isinstance(value, bool) and not isinstance(value, list | dict):
        return value if is_flag else _word(value)
    kind = "true or false" if is_flag else "one value"
    raise InvalidConfigError(
        f"`{_key(parameter.opts[0])}` in {path} must be {kind}, but got {excerpt(value)}."
    )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with the values of JSON: `no` is a text, `1e9` a number, and no key stands twice."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if any(isinstance(name, list | dict) for name in names) or len({*names}) < len(names):
            raise yaml.MarkedYAMLError(problem="a key twice, or none", problem_mark=node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes what `_Loader` reads."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


for _tag, _pattern in {
    "null": r"|~|null",
    "bool": r"true|false",
    "int": r"-?(0|[1-9][0-9]*)",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
}.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), None
    )
