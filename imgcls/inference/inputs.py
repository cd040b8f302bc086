"""What the user named, turned into a stream of image paths: files, folders, globs, and `-` for standard input.

Knows no images: a path that cannot be read is passed on, and becomes a failed row later.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from imgcls.pixels.decode import EXTENSIONS

WAYS = "give files, folders, globs, or - for paths on standard input"


def expand(
    arguments: Iterable[str],
    stdin: BinaryIO | None = None,
    null_separated: bool = False,
    on_ignored: Callable[[str], None] = lambda path: None,
    on_empty: Callable[[str], None] = lambda argument: None,
) -> Iterator[str | None]:
    """Yield image paths in the order of `arguments`, each folder walked in sorted order.

    None after some paths says that the next one may take a while: answer those.

    Args:
        arguments: files (passed on whatever their name), folders (their files with an image extension,
            recursively), globs (`**` is recursive), or `-`.
        stdin: where `-` reads one path per line.
        null_separated: paths on stdin end with a NUL byte.
        on_ignored: told each file of a folder that has no image extension.
        on_empty: told each argument that gave no path.
    """
    for argument in arguments:
        given = False
        for path in _expanded(argument, stdin, null_separated, on_ignored):
            given |= path is not None
            yield path
        if not given:
            on_empty(argument)


def _expanded(
    argument: str, stdin: BinaryIO | None, null_separated: bool, on_ignored: Callable[[str], None]
) -> Iterator[str | None]:
    if argument == "-" and stdin is not None:
        yield from _listed(stdin, b"\0" if null_separated else b"\n")
    elif os.path.isdir(argument):
        for path in walk(argument):
            if is_image_name(path) or os.path.isdir(path):
                yield path
            else:
                on_ignored(path)
    elif not os.path.lexists(argument) and glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True))
        yield from (path for path in matches if not os.path.isdir(path))
    else:
        yield argument


def walk(folder: str) -> Iterator[str]:
    """Yield every file below `folder`, sorted within each folder.

    Links are followed and each real folder is entered once; hidden folders are left out. A folder that cannot
    be read is yielded itself, so that it shows up as a failure and not as a silent gap.
    """
    seen: set[tuple[int, int]] = set()
    pending = [folder]
    while pending:
        path = pending.pop()
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as listing:
                entries = [(entry, is_folder(entry)) for entry in sorted(listing, key=lambda entry: entry.name)]
        except OSError:
            yield path
            continue
        folders = [entry for entry, folder_too in entries if folder_too]
        pending += [entry.path for entry in reversed(folders) if not is_hidden(entry.name)]
        yield from (entry.path for entry, folder_too in entries if not folder_too)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder or a link to one; a link that leads nowhere or in a circle is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_image_name(name: str) -> bool:
    """Tell whether a file name has one of the image extensions and is not hidden."""
    return name.lower().endswith(EXTENSIONS) and not is_hidden(os.path.basename(name))


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is out of a user's sight: dot names and what macOS and Jupyter leave behind."""
    return name.startswith(".") or name == "__MACOSX"


def _listed(stdin: BinaryIO, separator: bytes) -> Iterator[str | None]:
    pending = b""
    # read1 returns what is there: a slow producer gets its answers as it writes.
    while chunk := stdin.read1(65536) if hasattr(stdin, "read1") else stdin.read(65536):
        *whole, pending = (pending + chunk).split(separator)
        yield from (os.fsdecode(path) for path in whole if path)
        yield None
    if pending:
        yield os.fsdecode(pending)
