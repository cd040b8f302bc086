"""What the user named, turned into image paths: files, folders, globs, and `-` for standard input.

No image is opened here: a path that cannot be read is passed on, and becomes a failed row later.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, groupby, islice
from typing import BinaryIO, TypeVar

from imgcls.errors import UsageError
from imgcls.pixels.decode import EXTENSIONS

WAYS = "give files, folders, globs, or - for paths on standard input"
CONVERTIBLE = (".heic", ".heif", ".jfif", ".gif", ".avif")  # pictures that folders are not searched for

Item = TypeVar("Item")

# What file servers, systems and unpackers leave behind, beside names with a dot: thumbnails of every picture (@eaDir),
# deleted pictures ($RECYCLE.BIN, #recycle), older ones (#snapshot). In lower case.
SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "lost+found"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    )
)


def expand(
    arguments: Iterable[str],
    stdin: BinaryIO | None = None,
    null_separated: bool = False,
    on_ignored: Callable[[str], None] = lambda path: None,
    on_empty: Callable[[str], None] = lambda argument: None,
    on_hidden: Callable[[str], None] = lambda path: None,
) -> Iterator[Iterable[str]]:
    """Yield groups of image paths in the order of `arguments`, each folder walked in sorted order.

    A group ends where the next path may take a while, on standard input: its images can be answered first. Groups are
    read lazily, and one after the other.

    Args:
        arguments: files (passed on whatever their name), folders (their files with an image extension,
            recursively), globs as a shell has them (`**` is recursive; the part of a path that exists as it is
            written is no pattern), or `-`.
        stdin: where `-` reads one path per line.
        null_separated: paths on stdin end with a NUL byte.
        on_ignored: receives each file of a folder that has no image extension.
        on_empty: receives each argument that gave no path.
        on_hidden: receives each hidden folder that was left out.

    Raises:
        UsageError: standard input holds NUL bytes and is not said to.
    """
    for is_stdin, several in groupby(arguments, lambda argument: argument == "-"):
        if is_stdin and stdin is not None:
            yield from _or(lambda: on_empty("-"), _listed(stdin, null_separated))
        else:
            yield chain.from_iterable(
                _or(partial(on_empty, argument), _expanded(argument, on_ignored, on_hidden)) for argument in several
            )


def begun(groups: Iterator[Iterable[str]], most: int) -> tuple[list[str], Iterator[Iterable[str]]]:
    """Read ahead: return the first paths, at most `most` and of one group, and all groups with these in them."""
    for group in groups:
        paths = iter(group)
        if head := list(islice(paths, most)):
            return head, chain([chain(head, paths)], groups)
    return [], iter(())


def _or(when_empty: Callable[[], None], items: Iterable[Item]) -> Iterator[Item]:
    """Pass items on, and call when there were none."""
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        when_empty()


def _expanded(argument: str, on_ignored: Callable[[str], None], on_hidden: Callable[[str], None]) -> Iterator[str]:
    if os.path.isdir(argument):
        for path in walk(argument, on_hidden=on_hidden):
            if is_image_name(path) or os.path.isdir(path):
                yield path
            else:
                on_ignored(path)
    elif not os.path.lexists(argument) and glob.has_magic(argument):
        for path in _matches(argument, on_hidden):
            if not os.path.isdir(path):
                yield path
            elif "**" not in argument:  # which gives the files in it as well
                yield from _expanded(path, on_ignored, on_hidden)
    else:
        yield argument


def _matches(pattern: str, on_hidden: Callable[[str], None]) -> Iterator[str]:
    """Yield what a pattern stands for, sorted; system folders count only where they are written out."""
    parts = pattern.split("/")
    literal = next(end for end in range(len(parts) + 1) if not os.path.lexists("/".join(parts[: end + 1]) or "/"))
    escaped = "/".join([*map(glob.escape, parts[:literal]), *parts[literal:]])
    for path in sorted(glob.glob(escaped, recursive=True)):
        names = path.split("/")
        system = [depth for depth, name in enumerate(names) if name.casefold() in SYSTEM_NAMES and name not in parts]
        if system:  # names with a dot are glob's own business
            on_hidden("/".join(names[: system[0] + 1]))
        else:
            yield path


def walk(
    folder: str,
    follow: Callable[[str], bool] = lambda path: True,
    on_hidden: Callable[[str], None] = lambda path: None,
) -> Iterator[str]:
    """Yield every file below `folder`, sorted within each folder.

    Links are followed and each real folder is entered once; hidden folders are left out. A folder that cannot
    be read is yielded itself, so that it shows up as a failure and not as a silent gap.

    Args:
        folder: where to begin, whatever its name.
        follow: asked about each symbolic link, to a file or a folder, whether it counts.
        on_hidden: receives each hidden folder.
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
        entries = [(entry, folder_too) for entry, folder_too in entries if not entry.is_symlink() or follow(entry.path)]
        folders = [entry for entry, folder_too in entries if folder_too]
        for entry in folders:
            if is_hidden(entry.name):
                on_hidden(entry.path)
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
    """Tell whether a file or folder is out of a user's sight: dot names and what systems leave behind."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def _listed(stdin: BinaryIO, null_separated: bool) -> Iterator[list[str]]:
    """Yield the paths that came together, as soon as they are there."""
    pending, separator = b"", b"\0" if null_separated else b"\n"
    # read1 returns what is there: a slow producer gets its answers as it writes.
    while chunk := stdin.read1(65536) if hasattr(stdin, "read1") else stdin.read(65536):
        if not null_separated and b"\0" in chunk:
            raise UsageError(
                "-: standard input holds NUL bytes: type -0 if they end paths; pictures are not read there"
            )
        *whole, pending = (pending + chunk).split(separator)
        if paths := [os.fsdecode(path) for path in whole if path]:
            yield paths
    if pending:
        yield [os.fsdecode(pending)]
