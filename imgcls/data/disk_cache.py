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
from imgcls.data.pictures import Pictures, Store, decoded
from imgcls.errors import WriteError

SHARE = 0.5  # of the free disk, that all files in the folder may take together
SUFFIX = ".pixels"
FORMAT = 1  # to be raised when the layout, or what our own code makes of a picture, changes
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
    path = file_of(pictures)
    length = 24 * len(pictures)
    try:
        pixels = np.memmap(path, dtype=np.uint8, mode="c")  # "c": nobody writes, but torch wants to be able to
        places = np.frombuffer(bytes(pixels[-length:]), dtype=np.int64).reshape(-1, 3)
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(path)  # used now: `_make_room` removes what was not used for longest
    except (OSError, ValueError):
        return None
    bounds = np.append(places[:, 0], pixels.size - length)
    if not np.array_equal(np.diff(bounds), 3 * places[:, 1] * places[:, 2]):
        return None  # the file was cut short or zeroed: what stands at its end are no places
    return Store(pixels[:-length], places)


def write(pictures: Pictures, workers: int, told: Callable[[int], None], beside: Sequence[Pictures] = ()) -> Store:
    """Decode all pictures into a file.

    Args:
        pictures: of a split.
        workers: decoding threads.
        told: receives the number of images done, and may raise.
        beside: the run's other splits, whose files stay.

    Raises:
        ImageError: naming the first that cannot be read.
        WriteError: they would take more than half of the free disk, or the disk refuses them.
    """
    path = file_of(pictures)
    files.check_folder(path.parent)
    with contextlib.suppress(OSError):
        path.parent.chmod(0o700)  # the pictures may be private
    limit = _make_room(path.parent, pictures.bytes(), {file_of(others) for others in beside})
    places: list[tuple[int, int, int]] = []
    end = 0
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        for some in decoded(pictures, workers):
            for picture in some:
                if end + picture.size > limit:
                    raise _too_large(path.parent, end + picture.size, limit)
                file.write(np.ascontiguousarray(picture).data)
                places.append((end, *picture.shape[:2]))
                end += picture.size
            told(len(places))
        file.write(np.array(places, dtype=np.int64).data)
    store = find(pictures)
    if store is None:
        raise WriteError(f"{path}: was written and cannot be read; type --cache memory or --cache off")
    return store


def _make_room(place: Path, needed: int, kept: set[Path]) -> int:
    """Remove what was not used for longest, but not `kept`, until `needed` bytes may be added; return the limit."""
    with files.explained(place):
        ours = {path: path.stat() for path in place.iterdir() if path.is_file() and _is_ours(path)}
        for path in [path for path, found in ours.items() if _is_left_behind(path, found)]:
            path.unlink(missing_ok=True)  # by a process that was killed while it wrote
            del ours[path]
        taken = sum(found.st_size for found in ours.values())
        limit = int(SHARE * (shutil.disk_usage(place).free + taken))
        if needed + sum(ours[path].st_size for path in kept & ours.keys()) > limit:
            raise _too_large(place, needed, limit)
        for path in sorted(ours.keys() - kept, key=lambda path: ours[path].st_mtime):
            if taken + needed <= limit:
                break
            path.unlink(missing_ok=True)
            taken -= ours[path].st_size
        return limit - taken


def _is_ours(path: Path) -> bool:
    return path.suffix == SUFFIX or files.is_temporary(path)


def _is_left_behind(path: Path, found: os.stat_result) -> bool:
    return files.is_temporary(path) and time.time() - found.st_mtime > A_DAY


def _too_large(place: Path, needed: int, limit: int) -> WriteError:
    room = f"half of the free disk is {limit / 2**30:.1f} GiB"
    return WriteError(f"--cache disk: needs {needed / 2**30:.1f} GiB in {place}, {room}; type --cache off")
