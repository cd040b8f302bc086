"""Command-line options made from the config types, so that each setting is stated once.

A command declares `def train(given: Given, json: ... )` under `@with_settings(TrainConfig)` and receives what the
user typed; everything else about an option (flag, help, bounds, words) comes from its field.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import Field
from typing import Annotated, Any

import typer

from imgcls import settings
from imgcls.registry import DATASETS

Given = dict[str, Any]  # settings typed on the command line, by their JSON key

JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is stdout.")
]


def with_settings(config_type: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command all options of a config type; it receives the typed ones as its argument `given`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        items = list(settings.settings(config_type))

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {}
            for item, hint in items:
                value = values.pop(item.name)
                if value is not None:
                    given[item.name] = settings.parse(item, hint, value) if isinstance(value, str) else value
                    if given[item.name] is None:
                        given[item.name] = "auto"
            command(given=given, **values)

        own = inspect.signature(command, eval_str=True).parameters
        parameters = [
            *(_parameter(item, hint) for item, hint in items),
            *(value.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, value in own.items() if name != "given"),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def complete_data(incomplete: str) -> list[str]:
    """Complete `--data`: data sets by name, and folders, each with a slash."""
    above, start = os.path.split(incomplete)
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(entry.name for entry in os.scandir(above or os.curdir) if entry.is_dir())
    folders = [
        os.path.join(above, name, "")
        for name in names
        if name.startswith(start) and (start.startswith(".") or not name.startswith("."))
    ]
    found = [name for name in DATASETS if name.startswith(incomplete)] + folders
    if found == folders and len(folders) == 1:
        # The shell adds a blank to a single answer; with the folders in it one can go on typing.
        with contextlib.suppress(OSError):
            inner = sorted(entry.name for entry in os.scandir(folders[0]) if entry.is_dir())
            found += [os.path.join(folders[0], name, "") for name in inner if not name.startswith(".")]
    return found


def _parameter(item: Field[Any], hint: Any) -> inspect.Parameter:
    """Return a setting as typer wants it; the default None stands for "not typed", so `--config` can fill the gaps."""
    required = settings.is_required(item)
    default = inspect.Parameter.empty if required else None
    return inspect.Parameter(
        item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_annotation(item, hint)
    )


def _annotation(item: Field[Any], hint: Any) -> Any:
    # The default is part of the sentence, because typer sees None for all of them.
    flag, text = settings.flag(item), settings.help_text(item, hint)
    if bool in (hint, *getattr(hint, "__args__", ())):
        switch = flag if hint is bool else f"{flag}/--no-{flag[2:]}"
        return Annotated[bool | None, typer.Option(switch, help=text, show_default=False)]
    names = tuple(item.metadata["known"] or ()) or settings.choices(hint)

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    completion = complete_data if flag == "--data" else complete if names else None
    metavar = settings.metavar(item, hint)
    kind = str if settings.is_required(item) else str | None
    return Annotated[
        kind, typer.Option(flag, metavar=metavar, autocompletion=completion, help=text, show_default=False)
    ]
