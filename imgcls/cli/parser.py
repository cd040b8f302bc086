"""The command-line parser: typer, and every place where we lean on its insides.

typer carries its own click, which it does not offer: what is taken from it by name, by attribute or by the words of its
messages is here, and nowhere else.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from imgcls import habits
from imgcls.errors import nearest
from imgcls.paths import KINDS

# The bases of typer's public BadParameter are the errors that its click raises for usage.
USAGE_ERRORS: tuple[type[Exception], ...] = (typer.BadParameter.__mro__[2], typer.TyperException)


class ReaderGone(Exception):  # noqa: N818 - not an error
    """A broken pipe under another name, because typer turns the original into exit code 1."""


class AsTyped:
    """What typer calls to convert the value of an option or argument, in place of its own conversion.

    typer imports pydantic for it, which took 0.2 of the 0.9 seconds of `predict` with an ONNX file. All our options
    are text (`settings.parse` makes numbers of it), switches or lists, and need none.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value."""
        return value


class PlainValues:
    """Mixed into a typer group or command, gives its options and arguments the conversion of this module.

    A version of typer that converts in another way ignores it, and is slower.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all options and arguments, `--help` included."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            described = parameter.type_descriptor
            kind = getattr(described.annotation, "__origin__", described.annotation)
            if kind in (str, bool, list):
                parameter._runtime_param = AsTyped()
        return parameters


class Command(PlainValues, TyperCommand):
    """A command whose values are converted plainly."""


class Group(PlainValues, TyperGroup):
    """A group of commands that raises what went wrong, instead of printing it."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line; `--help` and `--version` print here."""
        with _renamed_broken_pipe():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command."""
        with _renamed_broken_pipe():
            return super().invoke(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line, run its command, and return the exit code that it asked for.

        Raises:
            Exception: one of `USAGE_ERRORS`, `ReaderGone`, or what the command raised.
        """
        return super().main(*args, **{**kwargs, "standalone_mode": False})


@contextlib.contextmanager
def _renamed_broken_pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error


def help_page(error: Exception) -> str | None:
    """Return the help that typer shows to who typed nothing; None for any other of `USAGE_ERRORS`."""
    is_help = type(error).__name__ == "NoArgsIsHelpError"
    return str(error.format_message()) if is_help else None  # type: ignore[attr-defined]


def usage_sentence(error: Exception) -> str:
    """Turn a usage error into our form: what was given, what is wrong, what to type next."""
    context = getattr(error, "ctx", None)
    sentence = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
    option = getattr(error, "option_name", None)
    if option and context is not None and sentence.startswith("No such option"):
        sentence = f"{option}: no such option{_meant_option(option, context)}"
    elif sentence.startswith("No such command"):
        name = sentence.split("'")[1] if "'" in sentence else ""
        known = context.command.commands if context else ()
        sentence = f"{name}: no such command{_did_you_mean(habits.COMMANDS.get(name.lower())) or nearest(name, known)}"
    elif sentence == "Missing option '--data'" and context is not None:
        return f"--data is missing: type {context.command_path} --data FOLDER"
    elif context is not None and (match := re.fullmatch(r"Got unexpected extra argument\S* \((.*)\)", sentence)):
        sentence = f"{match[1]}: belongs to no option{_meant_by_word(match[1].split(' ')[0], context)}"
    return f"{sentence}; type {context.command_path if context else 'imgcls'} --help"


def _names(command: Any) -> list[str]:
    return [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]


def _did_you_mean(words: str | None) -> str:
    return f" (did you mean '{words}'?)" if words else ""


def _meant_option(option: str, context: Any) -> str:
    """Return what to type in place of an option that a command has not."""
    known = _names(context.command)
    if hasattr(context.command, "commands"):  # typed before the command
        owners = [name for name, command in context.command.commands.items() if option in _names(command)]
        return f" here (did you mean 'imgcls {owners[0]} {option}'?)" if owners else nearest(option, known)
    wanted = habits.option(option, known)
    if wanted is None or wanted.startswith("-"):
        return _did_you_mean(wanted) or nearest(option, [name for name in known if name.startswith("-")])
    if habits.is_sentence(wanted):
        return f" ({wanted})"
    argument = next(parameter.metavar for parameter in context.command.params if wanted in parameter.opts)
    return f" (did you mean '{context.command_path} {argument}', without an option?)"


def _meant_by_word(word: str, context: Any) -> str:
    """Return the option that a word without one belongs to: `train dataset/`, `evaluate best.pt`, `train epochs=5`."""
    known = _names(context.command)
    key, sign, value = word.partition("=")
    if sign:
        option = f"--{key.replace('_', '-')}"
        return _did_you_mean(f"{option if option in known else habits.option(option, known) or option} {value}")
    if word.lower() in ("true", "false", "yes", "no", "on", "off"):
        return " (options such as --ema or --no-flip take no value)"
    is_model = word.lower().endswith((*KINDS["checkpoint"], *KINDS["onnx"]))
    option = "--ckpt" if is_model and "--ckpt" in known else "--data"
    return _did_you_mean(f"{option} {word}" if option in known else None)
