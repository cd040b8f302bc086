"""The `imgcls` command: its subcommands, and the one translator of errors and signals to exit codes.

Imports typer and the standard-library level only; the commands import the rest when they run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer

import imgcls
from imgcls import signals
from imgcls.cli import evaluate, export, info, inspect_batch, parser, predict, sample_data, train
from imgcls.cli.text import printable
from imgcls.errors import TOO_MANY_FILES, Exit, ImgclsError, Interrupted, out_of_memory

EXIT_CODES = "Exit codes: " + "; ".join(f"{int(code)} {code.meaning}" for code in Exit) + "."
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # errors of writing, whoever wrote


class OneLineErrors(parser.Group):
    """Every expected failure becomes one line on stderr and its exit code; only bugs show a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command and end the process."""
        _open_closed_streams()
        previous = signals.catch()
        try:
            code = self.run(*args, **kwargs)
            signals.check()
            sys.stdout.flush()
        except Interrupted as interrupted:
            _die_by(interrupted.signum)
        except Exception as error:
            _end(error)
            raise
        finally:
            signals.release(previous)
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
    registered.cls = parser.Command


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


def _end(error: Exception) -> None:
    """End the process with the sentence and the exit code of an expected failure; return from any other."""
    if isinstance(error, ImgclsError):
        _fail(str(error), error.exit_code)
    if isinstance(error, parser.USAGE_ERRORS):
        if page := parser.help_page(error):
            print(page, file=sys.stderr)
            sys.exit(Exit.USAGE)
        _fail(parser.usage_sentence(error), Exit.USAGE)
    if isinstance(error, (BrokenPipeError, parser.ReaderGone)):
        _leave_stdout()
        sys.exit(Exit.BROKEN_PIPE)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        _fail(TOO_MANY_FILES, Exit.RESOURCES)
    if isinstance(error, OSError) and error.errno in REFUSED:
        where = error.filename or "standard output"  # a file that could not be opened has a name
        _leave_stdout()
        _fail(f"{where}: cannot write: {(error.strerror or '').lower()}; free space", Exit.WRITE)
    if out_of_memory(error):
        _fail("out of memory: lower --batch-size or --workers", Exit.RESOURCES)


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
