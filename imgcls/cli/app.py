"""The `imgcls` command: its subcommands, and the one translator of errors and signals to exit codes.

Imports typer and the standard-library level only; the commands import the rest when they run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import imgcls
from imgcls import habits
from imgcls.cli import evaluate, export, info, inspect_batch, predict, sample_data, signals, train
from imgcls.cli.output import printable
from imgcls.cli.values import PlainCommand, PlainValues
from imgcls.errors import Exit, ImgclsError, Interrupted, nearest
from imgcls.files import KINDS

# typer carries its own click; the bases of its public BadParameter are the errors it raises for usage.
_CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]

EXIT_CODES = "Exit codes: " + "; ".join(f"{int(code)} {code.meaning}" for code in Exit) + "."


class _ReaderGone(Exception):  # noqa: N818 - not an error
    """A broken pipe under another name, because typer turns the original into exit code 1."""


class OneLineErrors(PlainValues, TyperGroup):
    """Every expected failure becomes one line on stderr and its exit code; only bugs show a traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line; `--help` and `--version` print here."""
        with _renamed_broken_pipe():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command."""
        with _renamed_broken_pipe():
            return super().invoke(*args, **kwargs)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command and end the process."""
        _open_closed_streams()
        previous = signals.catch()
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
            signals.check()
            sys.stdout.flush()
        except Interrupted as interrupted:
            _die_by(interrupted.signum)
        except ImgclsError as error:
            _fail(str(error), error.exit_code)
        except (_CLICK_ERROR, typer.TyperException) as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                print(error.format_message(), file=sys.stderr)  # type: ignore[attr-defined]
                sys.exit(Exit.USAGE)
            _fail(_usage_sentence(error), Exit.USAGE)
        except (BrokenPipeError, _ReaderGone):
            _leave_stdout()
            sys.exit(Exit.BROKEN_PIPE)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
                raise
            place = error.filename or "standard output"  # a file that could not be opened has a name
            _leave_stdout()
            _fail(f"{place}: cannot write: {(error.strerror or '').lower()}; free space", Exit.WRITE)
        except RuntimeError as error:
            if (signum := signals.caught()) is not None:  # what ended a loader process too
                _die_by(signum)
            if type(error).__name__ != "OutOfMemoryError":  # torch's, without importing torch
                raise
            _fail("out of memory on the device: lower --batch-size", Exit.RESOURCES)
        except MemoryError:
            _fail("out of memory: lower --batch-size or --workers", Exit.RESOURCES)
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)
        sys.exit(code or Exit.DONE)


app = typer.Typer(
    name="imgcls",
    cls=OneLineErrors,
    help="Image classification on PyTorch: train, evaluate, predict.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (train, evaluate, predict, export, inspect_batch, info, sample_data):
    command.register(app)
for registered in app.registered_commands:
    registered.cls = PlainCommand


@contextlib.contextmanager
def _renamed_broken_pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderGone from error


def _version(wanted: bool) -> None:
    if wanted:
        print(f"imgcls {imgcls.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Image classification on PyTorch: train, evaluate, predict.

    imgcls train --data dataset/ --arch resnet18 --epochs 20

    imgcls predict cat.jpg --ckpt best.pt
    """
    with contextlib.suppress(AttributeError, ValueError):  # a test's stream has no reconfigure
        # UTF-8 in the C locale too, and file names keep their bytes.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]


def _open_closed_streams() -> None:
    """Give a process started with closed streams (`>&-`) empty ones."""
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for the life of the process
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _die_by(signum: int) -> NoReturn:
    """End by the signal itself, so that a shell loop around the command stops too."""
    _leave_stdout(flush=True)
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    sys.exit(128 + signum)


def _fail(sentence: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    print(f"error: {printable(sentence)}", file=sys.stderr)
    sys.exit(code)


def _leave_stdout(flush: bool = False) -> None:
    """Keep Python from flushing to a stream that is gone when it exits."""
    with contextlib.suppress(OSError, ValueError):
        if flush:
            sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_sentence(error: Exception) -> str:
    """Turn typer's usage error into our form: what was given, what is wrong, what to type next."""
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
