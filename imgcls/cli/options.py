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

from imgcls import config
from imgcls.registry import DATASETS

Given = dict[str, Any]  # settings typed on the command line, by their JSON key


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


DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="FOLDER|NAME[:ROOT]",
        help="Folder of images, or a data set by name.",
        autocompletion=complete_data,
    ),
]
CkptOption = Annotated[
    str, typer.Option("--ckpt", metavar="FILE", help="Checkpoint of imgcls train, or .onnx file of imgcls export.")
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
AmpOption = Annotated[bool, typer.Option("--amp", help="Mixed precision (CUDA only); answers may differ slightly.")]
PositiveOption = Annotated[
    str | None,
    typer.Option("--positive", metavar="CLASS", show_default="the second", help="Two classes: the one to be found."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=0, show_default="auto: the CPUs, at most 8", help="Decoders at once."),
]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is stdout.")
]


def with_settings(config_type: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command all options of a config type; it receives the typed ones as its argument `given`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        items = list(config.settings(config_type))

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {}
            for item, hint in items:
                value = values.pop(item.name)
                if value is not None:
                    given[item.name] = config.parse(item, hint, value) if isinstance(value, str) else value
                    if given[item.name] is None:
                        given[item.name] = "auto"
            command(given=given, **values)

        parameters = [
            inspect.Parameter(
                item.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(item, hint)
            )
            for item, hint in items
        ]
        own = inspect.signature(command, eval_str=True).parameters
        parameters += [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, parameter in own.items() if name != "given"
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _annotation(item: Field[Any], hint: Any) -> Any:
    """Return the typer annotation of a setting; None stands for "not typed", so `--config` can fill the gaps."""
    meta, words = item.metadata, config.choices(hint)
    default = f"auto: {meta['auto']}" if meta["auto"] else str(item.default)
    if between := config.bounds(meta["low"], meta["high"]):
        default += f"; {between}"
    if meta["known"]:
        default = f"{default}] [one of: {', '.join(meta['known'])}"
    # The default is part of the sentence, because typer sees None for all of them.
    help_text = meta["help"] if hint is bool or default == "" else f"{meta['help']} [{default}]"
    flag = config.flag(item)
    if hint is bool:
        return Annotated[bool | None, typer.Option(flag, help=help_text, show_default=False)]
    if bool in getattr(hint, "__args__", ()):
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=help_text, show_default=False)]
    numbers = "N" if int in (hint, *getattr(hint, "__args__", ())) else "X"
    kind = "TEXT" if str in (hint, *getattr(hint, "__args__", ())) else numbers
    metavar = "|".join(words) if words and kind != "N" else "|".join([kind, *words])
    names = tuple(meta["known"] or ()) or words

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return Annotated[
        str | None,
        typer.Option(
            flag,
            metavar=metavar,
            autocompletion=complete_data if flag == "--data" else complete if names else None,
            help=help_text,
            show_default=False,
        ),
    ]
