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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from imgcls.errors import UsageError, WriteError, closest
from imgcls.registry import DATASETS

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of which it helps to know how much was to be written
# What a file is, by the end of its name: an output is never written under the name of another kind. Names that are
# not listed here say nothing, and take JSON and CSV (`--json "$(mktemp)"`).
KINDS: dict[str, tuple[str, ...]] = {
    "picture": (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg"),  # that we write, each as what it says
    "JSON": (".json",),
    "CSV": (".csv",),
    "onnx": (".onnx",),
    "torchscript": (".torchscript", ".ts"),
    "pt2": (".pt2",),
    "safetensors": (".safetensors",),
    "checkpoint": (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".h5", ".keras", ".npy", ".npz"),
    "image": (".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".heic", ".avif"),
    "other": (
        *(".jsonl", ".tsv", ".yaml", ".yml", ".toml", ".md", ".html", ".py", ".ipynb", ".sh", ".xlsx"),
        *(".zip", ".tar", ".gz", ".tgz"),
    ),
}


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
    target = _target(path)
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


def check_folder(folder: Path) -> None:
    """Create `folder` if it is missing and prove that a file can be written there.

    Raises:
        WriteError: it is a file, or it or a parent cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def check_result(
    path: str | os.PathLike[str],
    flag: str,
    *,
    data: str | None = None,
    kept: Iterable[str] = (),
    kind: str | None = None,
) -> None:
    """Prove, before a long computation, that its result can be written to `path` and replaces none of its inputs.

    Nor may it replace what is of another kind, or take its name; a device or a pipe may have any name.

    Args:
        path: a file.
        flag: the option that gave it, for the message.
        data: the user's data folder.
        kept: files that are read, or written under another option.
        kind: of `KINDS`, what will be written; None: whatever it is called.

    Raises:
        UsageError: it is inside the data folder, one of `kept`, or of another kind.
        WriteError: it is a folder, or its own folder is missing or cannot be written.
    """
    if data is not None:
        check_outside(path, data, flag)
    target = _target(path)
    for other in kept:
        if str(target) == os.path.realpath(other):
            raise UsageError(f"{flag} {path}: is {other} itself; name another file")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.is_file() or not os.path.exists(path):
            _probe(target.parent)
    except OSError as error:
        raise cannot_write(Path(path), error) from error
    if kind is not None:
        check_kind(path, flag, kind)


def check_kind(path: str | os.PathLike[str], flag: str, kind: str) -> None:
    """Refuse the name of another kind of file, and to replace one; a device or a pipe may have any name.

    Args:
        path: a file, or the name of one to be.
        flag: the option that gave it, for the message.
        kind: of `KINDS`.

    Raises:
        UsageError: with a name that would do.
    """
    path, target = Path(path), _target(path)
    if os.path.exists(path) and not target.is_file():
        return
    article = "an" if kind == "onnx" else "a"
    endings, called = KINDS[kind], f"{article} {kind}{'' if kind == 'picture' else ' file'}"
    better = path.with_suffix(endings[0])
    for name in (path, target):  # `target` is where a link leads
        owner = next((owner for owner in KINDS if name.suffix.lower() in KINDS[owner]), None)
        if owner not in (None, kind):
            raise UsageError(f"{flag} {path}: {name.suffix} is no name for {called}; type {flag} {better}")
    if kind == "picture" and path.suffix.lower() not in endings:
        raise UsageError(f"{flag} {path}: a picture ends in {', '.join(endings)}; type {flag} {path}{endings[0]}")
    if kind in ("JSON", "CSV") and target.is_file():
        with explained(path), target.open("rb") as file:
            binary = b"\0" in file.read(4096)
        if binary:
            raise UsageError(f"{flag} {path}: holds no text and would be lost; type {flag} {better}")


def check_outside(path: str | os.PathLike[str], data: str, flag: str) -> None:
    """Refuse a result inside the user's data folder, or the folder itself.

    Raises:
        UsageError: naming `flag`, the option that gave `path`.
    """
    name, _, root = data.partition(":")
    folder = (root or "data") if name in DATASETS and not os.path.isdir(data) else data
    here, there = (os.path.join(os.path.realpath(place), "") for place in (path, folder))
    if os.path.isdir(folder) and here.startswith(there):
        raise UsageError(f"{flag} {path}: is inside --data {data}, where nothing is written; name another {flag}")


def at_hand(path: str | os.PathLike[str], endings: tuple[str, ...] = ()) -> str | None:
    """Return an existing path that a missing one may be a slip of, or None.

    Args:
        path: what does not exist; each of its folders may be misspelt.
        endings: of the file that is sought; none: a folder is, and the answer ends in a slash.
    """
    parts, found = Path(path).parts, Path()
    for number, part in enumerate(parts, start=1):
        wants_file = bool(endings) and number == len(parts)
        if (found / part).is_dir() and not wants_file:
            found /= part
            continue
        names: list[str] = []
        with suppress(OSError):
            names = [entry.name for entry in os.scandir(found) if not entry.name.startswith(".")]
        if wants_file:
            names = [name for name in names if name.lower().endswith(endings) and (found / name).is_file()]
        else:
            names = [name for name in names if (found / name).is_dir()]
        match = closest(part, names)
        if match is None:
            return None
        found /= match
    return str(found) if endings else f"{found}{os.sep}"


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


def _target(path: str | os.PathLike[str]) -> Path:
    """Follow links; refuse what names standard output, because the file behind it would be replaced."""
    target = Path(os.path.realpath(path))
    if target.is_file() and str(path).startswith(("/dev/", "/proc/")):
        raise WriteError(f"{path}: leads to {target}, which would be replaced; name a file of its own")
    return target


def _probe(folder: Path) -> None:
    probe = _temporary(folder)
    probe.touch()
    probe.unlink()


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
