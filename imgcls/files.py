"""Files written whole or not at all: temporary file beside the target, fsync, rename, fsync of the folder.

Knows nothing of what is written; every file of the tool goes through `replacing`.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgcls.errors import WriteError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of which it helps to know how much was to be written


@contextmanager
def replacing(path: str | os.PathLike[str], size: Callable[[], int] | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path` that becomes `path` when the block ends well.

    On any exception the temporary file is removed and an older `path` is left as it was. A link is followed, and
    what is no regular file (/dev/null, a FIFO) is written to directly, never replaced. Close the file within the
    block: until then a full disk stays full.

    Args:
        path: the file; within another `replacing` also its temporary path, which is then written to directly.
        size: bytes of what is written, asked for when the disk is full; None: only what was written is known.

    Raises:
        WriteError: the folder or the disk refuses the file.
    """
    target = target_of(path)
    if is_temporary(target):  # the outer one names its own target when this fails
        yield target
        return
    if os.path.exists(path) and not target.is_file():
        try:
            yield Path(path)
        except OSError as error:
            raise cannot_write(Path(path), error) from error
        return
    temporary = _temporary(target.parent)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    except OSError as error:
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        known = f"{size():,}" if size is not None else f"more than {written:,}" if written else None
        raise cannot_write(target, error, known) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content`, whole or not at all."""
    with replacing(path, lambda: len(content)) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 (file names that are not UTF-8 keep their bytes); whole or not at all."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def point(link: Path, target: Path) -> bool:
    """Point the symbolic link `link` at `target`, relatively and in one step.

    Returns False, and changes nothing, when `link` exists and is not a symbolic link.
    """
    if link.exists() and not link.is_symlink():
        return False
    temporary = _temporary(link.parent)
    try:
        os.symlink(os.path.relpath(target, link.parent), temporary)
        os.replace(temporary, link)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(link, error) from error
    return True


def link(path: Path, name: Path) -> None:
    """Give a file another name in its folder, in one step, whatever had it before.

    Raises:
        OSError: the file system has no hard links, or no room.
    """
    temporary = _temporary(path.parent)
    try:
        os.link(path, temporary)
        os.replace(temporary, name)
    finally:
        temporary.unlink(missing_ok=True)  # which stays where both names were of one file already


def remove_temporary(folder: Path) -> None:
    """Remove what processes that were killed had begun to write in a folder of theirs."""
    for path in folder.iterdir():
        if is_temporary(path):
            path.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Create `folder` if it is missing and prove that a file can be written there.

    Raises:
        WriteError: it is a file, or it or a parent cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prove_writable(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def csv_line(cells: Iterable[object]) -> str:
    """Return a CSV row that ends in a newline.

    Before Python 3.13 the csv module left a carriage return unquoted where rows end in a newline alone.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into the one-line WriteError."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError, needs: str | None = None) -> WriteError:
    """Return the one-line error for a failed write to `path`, which needs that many bytes."""
    advice = {
        errno.ENOSPC: "free space",
        errno.EDQUOT: "free space",
        errno.EISDIR: "name a file",
        errno.ENOENT: "make the folder first",
    }
    reason = (error.strerror or str(error)).lower()
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        reason = "a file is where a folder is needed"
    wanted = f": it needs {needs} bytes" if needs and error.errno in FULL else ""
    return WriteError(f"{path}: cannot write: {reason}; {advice.get(error.errno or 0, 'name another path')}{wanted}")


def target_of(path: str | os.PathLike[str]) -> Path:
    """Follow links; refuse what names standard output, because the file behind it would be replaced."""
    target = Path(os.path.realpath(path))
    if target.is_file() and str(path).startswith(("/dev/", "/proc/")):
        raise WriteError(f"{path}: leads to {target}, which would be replaced; name a file of its own")
    return target


def prove_writable(folder: Path) -> None:
    """Make a file in a folder and remove it; an OSError says that this cannot be done."""
    probe = _temporary(folder)
    probe.touch()
    probe.unlink(missing_ok=True)  # who owns the folder may have removed it


def is_temporary(path: Path) -> bool:
    """Tell whether a file is one that `replacing` had not finished."""
    return path.name.startswith(".imgcls-") and path.suffix == ".tmp"


def _temporary(folder: Path) -> Path:
    return folder / f".imgcls-{os.getpid()}-{os.urandom(4).hex()}.tmp"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
