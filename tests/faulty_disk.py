"""A disk between the tool and a folder: it refuses the n-th operation, and tells what a kill or a power cut leaves.

What was written reaches the disk when the file is synchronised, and a name when its folder is (as ext4, XFS and others
may have it): https://www.usenix.org/system/files/conference/osdi14/osdi14-paper-pillai.pdf.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Content = dict[str, bytes]  # of a folder, by name


class Cut(BaseException):
    """The process is gone."""


@dataclass
class State:
    """What a folder holds after one operation.

    Attributes:
        after: the operation.
        acknowledged: what the tool had said to be saved before.
        left: its content after "a kill", and after "a power cut" that lost the names or only the contents that were
            not synchronised.
    """

    after: str
    acknowledged: int
    left: dict[str, Content]


@dataclass
class Disk:
    """Watches a folder without folders in it.

    Attributes:
        folder: what is watched.
        refused: numbers of the operations, from 0, that end in "no space left on device".
        operations: those so far.
        states: what was left after each of them, if they are recorded.
        acknowledged: to be raised by whoever hears that something was saved.
    """

    folder: Path
    refused: Callable[[int], bool] = lambda number: False
    records: bool = False
    operations: list[str] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    acknowledged: int = 0
    _synced: dict[int, bytes] = field(default_factory=dict)  # content of each file, by inode
    _named: dict[str, int] = field(default_factory=dict)  # inodes of the folder

    def operate(self, what: str, path: str, work: Callable[[], Any]) -> Any:
        """Do something to the folder, unless it is refused."""
        number = len(self.operations)
        self.operations.append(f"{number} {what} {Path(path).name}")
        if self.refused(number):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        result = work()
        if self.records:
            self._record()
        return result

    def sync(self, descriptor: int) -> None:
        """Note what is safe from now on."""
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._named = self._names()
        else:
            self._synced[found.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

    def _names(self) -> dict[str, int]:
        return {path.name: path.lstat().st_ino for path in self.folder.iterdir()}

    def _record(self) -> None:
        names = self._names()
        killed = {name: (self.folder / name).read_bytes() for name in names}
        unsynced = {name: self._synced.get(inode, b"") for name, inode in names.items()}
        unnamed = {name: self._synced.get(inode, b"") for name, inode in self._named.items()}
        left = {"a kill": killed, "a power cut that kept the names": unsynced, "a power cut": unnamed}
        self.states.append(State(self.operations[-1], self.acknowledged, left))

    def holds(self, path: Any) -> bool:
        """Tell whether a path is one of this folder."""
        return isinstance(path, str | os.PathLike) and Path(path).parent == self.folder

    @contextmanager
    def between(self) -> Iterator[None]:
        """Stand between the tool and the folder."""
        real = {name: getattr(os, name) for name in ("replace", "link", "unlink", "fsync")}
        opened, disk = io.open, self

        class File(io.FileIO):
            def write(self, content: Any) -> int:
                return int(disk.operate("write", str(self.name), lambda: super(File, self).write(content)))

        def open_(path: Any, mode: str = "r", buffering: int = -1, *args: Any, **more: Any) -> Any:
            if not disk.holds(path) or not set(mode) & set("wax+"):
                return opened(path, mode, buffering, *args, **more)
            is_new = not os.path.exists(path)
            plain = mode.replace("b", "").replace("t", "")
            raw = disk.operate("create", str(path), lambda: File(path, plain))
            if is_new:
                disk._synced.pop(os.fstat(raw.fileno()).st_ino, None)
            if buffering == 0:
                return raw
            size = max(buffering, io.DEFAULT_BUFFER_SIZE)
            file = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
            return file if "b" in mode else io.TextIOWrapper(file, more.get("encoding"))

        def named(name: str) -> Callable[..., Any]:
            def call(*paths: Any, **more: Any) -> Any:
                if not disk.holds(paths[-1]):
                    return real[name](*paths, **more)
                if name == "unlink" and not os.path.lexists(paths[-1]):
                    return real[name](*paths, **more)
                if name == "unlink":  # needs no room
                    result = real[name](*paths, **more)
                    return disk.operate(name, str(paths[-1]), lambda: result) if disk.records else result
                return disk.operate(name, str(paths[-1]), lambda: real[name](*paths, **more))

            return call

        def fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if Path(path) != disk.folder and not disk.holds(path):
                return real["fsync"](descriptor)  # type: ignore[no-any-return]

            def work() -> None:
                disk.sync(descriptor)

            return disk.operate("fsync", path, work)  # type: ignore[no-any-return]

        with pytest.MonkeyPatch.context() as patch:
            for name in ("replace", "link", "unlink"):
                patch.setattr(os, name, named(name))
            patch.setattr(os, "fsync", fsync)
            patch.setattr(io, "open", open_)
            patch.setattr(builtins, "open", open_)
            yield
