"""Exit codes and the errors a user can cause: one sentence each, with the code the process ends with.

Knows nothing of the command line; `imgcls.cli.app` translates these once, in one place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the `imgcls` process; `meaning` is the text shown in `--help` and the README."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        """Make an integer member that carries its explanation."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "done"
    FAILED = 1, "failed (a bug shows a traceback, an expected failure one line)"
    USAGE = 2, "usage: an option, or a path given to one, is wrong"
    DATA = 3, "the data is the problem"
    CHECKPOINT = 4, "the checkpoint or the weights are the problem"
    SOME_FAILED = 5, "finished, but some inputs failed"
    DIVERGED = 6, "training diverged (NaN or infinite values)"
    WRITE = 7, "cannot write (a run folder in use too)"
    RESOURCES = 8, "out of memory, or a worker or device was lost"
    TIME_LIMIT = 75, "stopped by a time limit, progress saved"
    SIGINT = 130, "stopped by SIGINT (Ctrl-C)"
    BROKEN_PIPE = 141, "the reader of standard output went away"
    SIGTERM = 143, "stopped by SIGTERM"


class ImgclsError(Exception):
    """An expected failure. The message says what was given, what is wrong and what to do, on one line."""

    exit_code = Exit.FAILED


class UsageError(ImgclsError):
    """An option or a path given to one is wrong."""

    exit_code = Exit.USAGE


class DataError(ImgclsError):
    """The data set cannot be used as it is."""

    exit_code = Exit.DATA


class ImageError(DataError):
    """One image cannot be read; the message starts with its name."""


class CheckpointError(ImgclsError):
    """A checkpoint or weight file cannot be used."""

    exit_code = Exit.CHECKPOINT


class NonFiniteError(CheckpointError):
    """A network answers with NaN or infinite logits: in training it diverged, elsewhere its checkpoint is no good."""

    def __init__(self, where: str | None = None) -> None:
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}the network gives NaN or infinite logits; use an earlier checkpoint")


class ExportError(ImgclsError):
    """A model cannot be exported, or the export disagrees with its checkpoint."""


class DivergedError(ImgclsError):
    """The loss or the weights became NaN or infinite.

    Attributes:
        step: the optimizer step, from 1; None: not known.
        images: paths of its images.
    """

    exit_code = Exit.DIVERGED

    def __init__(self, sentence: str, step: int | None = None, images: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.step, self.images = step, tuple(images)


class TimeLimitError(ImgclsError):
    """The time that `--time-limit` gives is up; what was learnt is saved."""

    exit_code = Exit.TIME_LIMIT


class WriteError(ImgclsError):
    """A result cannot be written."""

    exit_code = Exit.WRITE


class ResourceError(ImgclsError):
    """Memory ran out, or a worker process or device was lost."""

    exit_code = Exit.RESOURCES


TOO_MANY_FILES = "too many open files: raise their number, for example by ulimit -n 4096, or lower --workers"

# What torch, its allocator on the CPU, CUDA's libraries and onnxruntime say when there is no memory left.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "failed to allocate memory")


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, of whatever library, means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return True
    words = str(error).lower()
    foreign = isinstance(error, Exception) and not isinstance(error, ImgclsError | OSError)
    return foreign and any(sign in words for sign in _NO_MEMORY)


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived. Not an `Exception`, so that nothing on the way up swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the closest of `known`, or an empty string."""
    match = closest(name, known, 0.5)
    return f" (did you mean '{match}'?)" if match else ""


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the word of `known` that is most like `name`; None when none is, by difflib's measure of 0 to 1."""
    folded = {word.casefold(): word for word in known}
    matches = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[matches[0]] if matches else None


def counted(number: int, noun: str) -> str:
    """Return "1 image" or "2 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def missing_extra(package: str, extra: str) -> UsageError:
    """Return the error for an optional package that is not installed."""
    return UsageError(f"{package} is not installed: type pip install 'imgcls[{extra}]'")
