"""Decoded pictures in a file of the user's cache folder, found again by later runs on the same files.

A file is written whole or not at all and is read through a memory map. Knows no training.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from imgcls import files
from imgcls.data.cache import Store, decoded
from imgcls.data.pictures import Pictures
from imgcls.errors import WriteError

DISK_FRACTION = 0.5  # of the free disk, that all files in the folder may take together
SUFFIX = ".pixels"
FORMAT = 2  # to be raised when the layout, or what our own code makes of a picture, changes
A_DAY = 24 * 3600  # seconds


def folder() -> Path:
    """Return where the files are: imgcls/ in $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")) / "imgcls"


def file_of(pictures: Pictures) -> Path:
    """Return the file for these pictures: other files, sizes, times, decoding or decoders, another name."""
    what = (
        (FORMAT, version("pillow"), version("simplejpeg")),
        pictures.images.stamp(),
        pictures.shorter,
        pictures.preprocess if pictures.shorter is None else None,
    )
    return folder() / (hashlib.sha256(repr(what).encode()).hexdigest()[:32] + SUFFIX)


def find(pictures: Pictures) -> Store | None:
    """Return the store that an earlier run wrote, or None when there is none that is whole."""
    return _read(file_of(pictures), len(pictures))


def _read(path: Path, images: int) -> Store | None:
    length = 24 * images
    try:
        pixels = np.memmap(path, dtype=np.uint8, mode="c")  # "c": nobody writes, but torch wants to be able to
        layout = np.frombuffer(bytes(pixels[-length:]), dtype=np.int64).reshape(-1, 3)
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(path)  # used now: `_make_room` removes what was not used for longest
    except (OSError, ValueError):
        return None
    bounds = np.append(layout[:, 0], pixels.size - length)
    if not np.array_equal(np.diff(bounds), 3 * layout[:, 1] * layout[:, 2]):
        return None  # the file was cut short or zeroed: what stands at its end is no layout
    return Store(pixels[:-length], layout)


def write(pictures: Pictures, threads: int, progress: Callable[[int], None], beside: Sequence[Pictures] = ()) -> Store:
    """Decode all pictures into a file.

    Args:
        pictures: of a split.
        threads: that decode.
        progress: receives the number of images done, and may raise.
        beside: the run's other splits, whose files stay.

    Raises:
        ImageError: naming the first that cannot be read.
        WriteError: they would take more than half of the free disk, or the disk refuses them.
    """
    path = file_of(pictures)
    try:
        files.check_folder(path.parent)
    except WriteError as error:
        problem = str(error).partition("; ")[0]
        raise WriteError(f"--cache disk: {problem}; set XDG_CACHE_HOME to another folder, or drop it") from error
    room = _make_room(path.parent, pictures, {file_of(others) for others in beside})
    layout: list[tuple[int, int, int]] = []
    end = 0
    with files.replacing(path) as temporary, open(temporary, "wb", opener=_private) as file:
        for some in decoded(pictures, threads):
            for picture in some:
                if end + picture.size > room:
                    raise _too_large(path.parent, end + picture.size, room)
                file.write(np.ascontiguousarray(picture).data)
                layout.append((end, *picture.shape[:2]))
                end += picture.size
            progress(len(layout))
        file.write(np.array(layout, dtype=np.int64).data)
    store = _read(path, len(pictures))
    if store is None:
        raise WriteError(f"{path}: was written and cannot be read; type --cache memory or --cache off")
    return store


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # the pictures may be; a later chmod fails on some network disks


def _make_room(where: Path, pictures: Pictures, kept: set[Path]) -> int:
    """Remove what was not used for longest, but not `kept`, until the pictures fit; return the room in bytes."""
    with files.explained(where):
        ours = dict[Path, os.stat_result]()
        for path in where.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another run finished or removed it
                if (path.suffix == SUFFIX or files.is_temporary(path)) and path.is_file():
                    ours[path] = path.stat()
        for path in [path for path, found in ours.items() if _is_left_behind(path, found)]:
            path.unlink(missing_ok=True)  # by a process that was killed while it wrote
            del ours[path]
        kept = {path for path in ours if path in kept or files.is_temporary(path)}  # other runs are writing those
        taken = sum(found.st_size for found in ours.values())
        limit = int(DISK_FRACTION * (shutil.disk_usage(where).free + taken))
        room = limit - sum(ours[path].st_size for path in kept)
        if pictures.bytes() > room:
            raise _too_large(where, pictures.bytes(), room)
        for path in sorted(ours.keys() - kept, key=lambda path: ours[path].st_mtime):
            if taken + pictures.most_bytes() <= limit:
                break
            path.unlink(missing_ok=True)
            taken -= ours[path].st_size
        return limit - taken


def _is_left_behind(path: Path, found: os.stat_result) -> bool:
    return files.is_temporary(path) and time.time() - found.st_mtime > A_DAY


def _too_large(where: Path, needed: int, room: int) -> WriteError:
    left = f"{max(0, room) / 2**30:.1f} GiB are left there of half of the free disk"
    return WriteError(f"--cache disk: needs {needed / 2**30:.1f} GiB in {where}, {left}; type --cache off")
