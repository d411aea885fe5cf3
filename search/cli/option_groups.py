"""Commands whose options are declared in Python: as fields of dataclasses, or as parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from search.cli.going_on import told_how_to_go_on
from search.wording import PROGRAM


def option(help: str, metavar: str | None = None, default: Any = None, **settings: Any) -> Any:
    """An option of the command line; its annotation says which values it takes.

    `default=MISSING` stands for an option that must be given. Among the settings, `flag` is the
    option's name, by default that of the field, and `sets` the field of a TrainConfig that it
    sets; the others are click's.
    """
    return field(default=default, metadata={"help": help, "metavar": metavar, **settings})


def switch(help: str) -> Any:
    """An option without a value: True if it is given."""
    return option(help, default=False)


def argument(metavar: str, **settings: Any) -> Any:
    """A positional argument, with further settings of click; a tuple takes one value or more."""
    return field(metadata={"metavar": metavar, **settings})


def given(options: Any) -> dict[str, Any]:
    """The options of a group that were given, by the names of its fields."""
    values = {f.name: getattr(options, f.name) for f in fields(options)}
    return {name: value for name, value in values.items() if value is not None}


def command(example: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make `run_NAME` the command NAME; its help is the docstring, and ends with the example.

    A parameter that is annotated with a dataclass takes a group of options, one for each field.
    Any other has an option or an argument as its default.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        command_name = function.__name__.removeprefix("run_")
        parameters: list[click.Parameter] = []
        groups: dict[str, Any] = {}
        types = get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if is_dataclass(group := types[name]):
                groups[name] = group
                hints, title = get_type_hints(group), getattr(group, "TITLE", _Option.title)
                parameters += [_made(f, hints[f.name], f"{name}__", title) for f in fields(group)]
            else:
                parameter.default.name = name
                parameters.append(_made(parameter.default, group))

        def callback(**values: Any) -> None:
            for name, group in groups.items():
                names = [f.name for f in fields(group)]
                values[name] = group(**{n: values.pop(f"{name}__{n}") for n in names})
            with told_how_to_go_on(command_name, values):
                function(**values)

        return _Command(
            command_name,
            params=parameters,
            callback=callback,
            help=inspect.getdoc(function),
            epilog=f"\b\nexample:\n  {PROGRAM} {example}",
        )

    return decorate


class _Option(click.Option):
    """An option, and the title of its group in the help."""

    title = "Options"


class _Command(click.Command):
    """A command whose help shows its options by groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {_Option.title: []}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                groups.setdefault(getattr(parameter, "title", _Option.title), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _made(
    declared: Field[Any], annotation: Any, prefix: str = "", title: str = _Option.title
) -> click.Parameter:
    settings = {**_type_of(annotation), **declared.metadata}
    name = f"{prefix}{declared.name}"
    if "help" not in settings:
        if settings.pop("multiple", False):
            settings |= {"nargs": -1, "required": True}
        return click.Argument([name], **settings)
    settings.pop("sets", None)
    flag = settings.pop("flag", None) or f"--{declared.name.replace('_', '-')}"
    must = declared.default is MISSING
    settings |= {"required": True} if must else {"default": declared.default}
    made = _Option([flag, name], **settings)
    made.title = title
    return made


def _type_of(annotation: Any) -> dict[str, Any]:
    """What click must know of the values: switch, choice, path or plain type, and how often."""
    if get_origin(annotation) is tuple:
        return {"type": get_args(annotation)[0], "multiple": True}
    if get_origin(annotation) is Literal:
        return {"type": click.Choice(get_args(annotation))}
    if get_args(annotation):
        return _type_of(get_args(annotation)[0])
    if annotation is bool:
        return {"is_flag": True}
    return {"type": click.Path(path_type=Path) if annotation is Path else annotation}
