"""Where a split's pictures are: files in a folder, or arrays in memory. Both give upright RGB pixels by index.

Knows no labels and no splits.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from imgcls.data.draws import content_hash
from imgcls.errors import ImageError
from imgcls.pixels.decode import Pixels, decode, image_size, reduced

GONE = (-1, 0)  # size and time of a file that is not there
PIECE = 4096  # bytes at the beginning, in the middle and at the end of a file by which it is known again


class Images(Protocol):
    """A sequence of pictures."""

    def __len__(self) -> int:
        """Return how many pictures there are."""

    def load(self, index: int, shorter: int | None = None) -> Pixels:
        """Return one upright RGB picture, uint8 [height, width, 3]; ImageError when it cannot be read.

        With `shorter` it may be given at a fraction of its size, as `pixels.decode.decode` says.
        """

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) in pixels, from the header alone; ImageError when it cannot be read."""

    def name(self, index: int) -> str:
        """Return the picture's name: relative path, or data set and number."""

    def path(self, index: int) -> str:
        """Return where the picture is: the file's path, or the name of what has none."""

    def content(self, index: int) -> int:
        """Return a signed 64-bit hash of a picture: size and parts of the file, or the pixels; 0: cannot be read."""

    def take(self, indices: npt.NDArray[np.int64]) -> Images:
        """Return these pictures only, in this order."""

    def fingerprint(self) -> str:
        """Return a hash of names and byte sizes (files) or of the pixels (arrays)."""

    def stamp(self) -> str:
        """Return a hash of order and content; of files it takes paths, sizes and times for the content."""

    def watched(self) -> Images:
        """Return the same, of which `load` refuses what is changed from now on."""

    def changed(self) -> list[int]:
        """Return which of `watched` ones were changed or removed since."""


@dataclass(frozen=True)
class FileImages:
    """Pictures in files.

    Attributes:
        root: folder the names are relative to.
        names: relative paths, str [n]; one array, because it is handed to every worker.
        seen: byte sizes and times of change (ns) when they were listed, int64 [n, 2]; None: whatever they are.
    """

    root: str
    names: npt.NDArray[np.str_]
    seen: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, root: str, names: Sequence[str]) -> FileImages:
        """Make it from a list of relative paths."""
        return cls(root, np.array(names, dtype=np.str_))

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Return where a picture's file is."""
        return os.path.join(self.root, str(self.names[index]))

    def load(self, index: int, shorter: int | None = None) -> Pixels:
        """Decode one file."""
        path = self.path(index)
        if self.seen is not None and (found := _size_and_time(path)) != tuple(self.seen[index]) and found != GONE:
            raise ImageError(f"{path}: was changed since it was listed")
        return decode(path, shorter=shorter)

    def size(self, index: int) -> tuple[int, int]:
        """Read one header."""
        return image_size(self.path(index))

    def name(self, index: int) -> str:
        """Return the relative path with forward slashes."""
        return str(self.names[index]).replace(os.sep, "/")

    def content(self, index: int) -> int:
        """Hash the byte size and three pieces of one file.

        The size alone says nothing of uncompressed pictures, and the beginning little of those of one camera.
        """
        try:
            with open(self.path(index), "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                pieces = [str(size).encode()]
                for start in sorted({0, max(0, (size - PIECE) // 2), max(0, size - PIECE)}):
                    file.seek(start)
                    pieces.append(file.read(PIECE))
        except OSError:  # decoding it will say so
            return 0
        return content_hash(b"\0".join(pieces))

    def take(self, indices: npt.NDArray[np.int64]) -> FileImages:
        """Return these files only."""
        return FileImages(self.root, self.names[indices], None if self.seen is None else self.seen[indices])

    def fingerprint(self) -> str:
        """Hash the sorted relative paths and byte sizes."""
        digest = hashlib.sha256()
        for index in np.argsort(self.names, kind="stable"):
            size = _size_and_time(self.path(index))[0] if self.seen is None else self.seen[index][0]
            digest.update(f"{self.name(index)}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    def stamp(self) -> str:
        """Hash the paths in their order, byte sizes and times of change."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            path = os.path.abspath(self.path(index))
            try:
                found = os.stat(path)
                digest.update(os.fsencode(f"{path}\0{found.st_size} {found.st_mtime_ns}\n"))
            except OSError:  # decoding it will say so
                digest.update(os.fsencode(path))
        return digest.hexdigest()

    def watched(self) -> FileImages:
        """Note sizes and times of change."""
        seen = [_size_and_time(self.path(index)) for index in range(len(self))]
        return replace(self, seen=np.array(seen, dtype=np.int64).reshape(-1, 2))

    def changed(self) -> list[int]:
        """Compare sizes and times of change with those that were noted."""
        if self.seen is None:
            return []
        return [index for index in range(len(self)) if _size_and_time(self.path(index)) != tuple(self.seen[index])]


@dataclass(frozen=True)
class ArrayImages:
    """Pictures in memory.

    Attributes:
        label: what precedes the number in a picture's name.
        pixels: uint8 [n, height, width, 3] or, grey, [n, height, width].
        numbers: int64 [n], each picture's number in the data set.
    """

    label: str
    pixels: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.int64]

    @classmethod
    def of(cls, label: str, pixels: npt.NDArray[np.uint8]) -> ArrayImages:
        """Number the pictures of an array."""
        return cls(label, pixels, np.arange(len(pixels)))

    def __len__(self) -> int:
        return len(self.numbers)

    def load(self, index: int, shorter: int | None = None) -> Pixels:
        """Return one entry."""
        pixels = self.pixels[self.numbers[index]]
        return reduced(pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2), shorter)

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) in pixels; all entries have one size."""
        return self.pixels.shape[2], self.pixels.shape[1]

    def name(self, index: int) -> str:
        """Return data set, split and number."""
        return f"{self.label}/{self.numbers[index]:06d}"

    def path(self, index: int) -> str:
        """Return the name."""
        return self.name(index)

    def content(self, index: int) -> int:
        """Hash the pixels of one entry."""
        return content_hash(self.pixels[self.numbers[index]].tobytes())

    def take(self, indices: npt.NDArray[np.int64]) -> ArrayImages:
        """Return these entries only; the pixels are shared, not copied."""
        return ArrayImages(self.label, self.pixels, self.numbers[indices])

    def fingerprint(self) -> str:
        """Hash the numbers and all pixels of the data set."""
        digest = hashlib.sha256(self.numbers.tobytes())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()[:16]

    def stamp(self) -> str:
        """Return the fingerprint."""
        return self.fingerprint()

    def watched(self) -> ArrayImages:
        """Return itself: nobody changes what is in memory."""
        return self

    def changed(self) -> list[int]:
        """Return none."""
        return []


def _size_and_time(path: str) -> tuple[int, int]:
    """Return a file's size in bytes and its time of change in ns; `GONE` where it cannot be had."""
    try:
        found = os.stat(path)
    except OSError:  # a dangling link; decoding it will say so
        return GONE
    return found.st_size, found.st_mtime_ns
