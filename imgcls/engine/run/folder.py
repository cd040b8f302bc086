"""The folder of a training run: who may use it, and the files in it, each written whole or not at all.

Knows no training; `paths.RUN_FILES` are the only names it ever creates or replaces.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from imgcls import checkpoint, files, plots
from imgcls.checkpoint import Checkpoint
from imgcls.config import TrainConfig
from imgcls.engine.run.history import best_epoch
from imgcls.errors import CheckpointError, WriteError
from imgcls.paths import DEFAULT_PARENT, RUN_FILES
from imgcls.provenance import provenance
from imgcls.schema import Choice
from imgcls.settings import to_dict

ROOM = 2**14  # bytes that a run holds while it goes on, so that config.json can tell of a full disk


@dataclass
class RunFolder:
    """An open run folder. The lock on `run.lock` lives until `close`, and no longer than the process."""

    path: Path
    lock: Any

    def close(self) -> None:
        """Let others train here; closing alone would not, while loader processes live that hold the file too."""
        fcntl.flock(self.lock, fcntl.LOCK_UN)
        self.lock.close()

    def use_spare(self) -> None:
        """Put last.prev.pt in the place of a damaged last.pt, which the next save would else make the spare."""
        with files.explained(self.path):
            os.replace(self.path / "last.prev.pt", self.path / "last.pt")

    def save_best(self, best: Checkpoint) -> None:
        """Write best.pt."""
        checkpoint.save(self.path / "best.pt", best)

    def mend_best(self, last: Checkpoint, lost: bool, make: bool) -> None:
        """Keep a best.pt that cannot be loaded under another name, and make one of the last epoch, if it is to be."""
        best = self.path / "best.pt"
        if lost and os.path.exists(best):
            with files.explained(best):
                os.replace(best, self.path / "best.damaged.pt")
        if make:
            self.save_best(replace(last, training={}))

    def save_last(self, last: Checkpoint) -> None:
        """Write last.pt and keep the one before it as last.prev.pt: two of them and no more at any time."""
        path, previous = self.path / "last.pt", self.path / "last.prev.pt"
        if path.exists():
            with contextlib.suppress(OSError):  # a file system without hard links keeps no spare
                files.link(path, previous)
        checkpoint.save(path, last)

    def write_metrics(self, history: Sequence[dict[str, Any]]) -> None:
        """Write metrics.jsonl: one line per epoch."""
        files.write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in history))

    def write_config(self, config: TrainConfig, choices: Sequence[Choice[Any]], fingerprint: str, status: str) -> None:
        """Write config.json: what was asked for, what was decided and why, and on what it ran."""
        resolved = {choice.name: {"value": choice.value, "reason": choice.reason} for choice in choices}
        is_default, earlier = config.out is None, None
        if config.resume and (self.path / "config.json").exists():  # what was decided at the start still stands
            before = read_config(self.path)
            resolved, earlier = before["resolved"] | resolved, before["run"]
            is_default = bool(earlier.get("default_folder"))
        values = {
            "config": to_dict(config),
            "resolved": resolved,
            "run": {
                "status": status,
                **provenance(earlier),
                "data_fingerprint": fingerprint,
                "process": os.getpid(),
                "default_folder": is_default,  # started without --out, though it goes on with one
            },
        }
        files.write_json(self.path / "config.json", values)

    def set_status(self, **values: Any) -> None:
        """Change what config.json says of the run: its last words, so the room kept for them is given up."""
        with files.explained(self.path / "run.lock"):
            _write_owner(self.lock)
        config = read_config(self.path)
        config["run"] |= values
        files.write_json(self.path / "config.json", config)

    def finish(self, history: Sequence[dict[str, Any]], monitor: str) -> None:
        """Complete metrics.jsonl, draw the curves and drop the spare checkpoint."""
        self.write_metrics(history)
        best = best_epoch(history, monitor) if history[-1]["val_acc"] is not None else None
        plots.save(plots.curves(history, best), self.path / "curves.png")
        with files.explained(self.path):
            (self.path / "last.prev.pt").unlink(missing_ok=True)

    def is_here_by_default(self) -> bool:
        """Tell whether the run was started without `--out`, and its folder is one of ./runs."""
        started_so = read_config(self.path)["run"].get("default_folder")
        return bool(started_so) and os.path.isdir(DEFAULT_PARENT) and self.path.parent.samefile(DEFAULT_PARENT)


def create(config: TrainConfig) -> RunFolder:
    """Make the run folder, or take over the one named by `--out`, and lock it.

    Raises:
        WriteError: it cannot be written, or another process trains in it.
    """
    path = Path(config.out) if config.out is not None else _new_folder(config.arch)
    files.check_folder(path)
    lock = _locked(path)
    with files.explained(path):
        files.remove_temporary(path)
        if config.overwrite:
            for name in RUN_FILES:
                if name == "tensorboard":
                    shutil.rmtree(path / name, ignore_errors=True)
                elif name != "run.lock":
                    (path / name).unlink(missing_ok=True)
    return RunFolder(path, lock)


def tell(path: Path, **values: Any) -> None:
    """Change what config.json says of a run that nobody goes on with any more.

    Raises:
        WriteError: its process lives, or the disk refuses it.
        CheckpointError: there is no config.json.
    """
    with contextlib.closing(RunFolder(path, _locked(path))) as opened:
        if read_config(path)["run"]["status"] == "running":
            opened.set_status(**values)


def load_last(path: Path) -> tuple[Checkpoint | None, str | None]:
    """Load the newest valid checkpoint of a run to continue.

    Returns:
        The checkpoint, None when the folder holds none; and a warning when the newest was damaged.

    Raises:
        CheckpointError: there are checkpoints, but no valid one.
    """
    problems = []
    for name in ("last.pt", "last.prev.pt"):
        if os.path.exists(path / name):
            try:
                loaded = checkpoint.load(path / name)
                if not loaded.training.keys() >= {"optimizer", "scaler", "raw", "step", "history", "processes"}:
                    raise CheckpointError(f"{path / name}: has no optimizer state; it cannot be continued")
            except CheckpointError as error:
                problems.append(str(error).partition("; ")[0])  # what it advises is for files from elsewhere
            else:
                return loaded, f"{problems[0]}; continuing from {name}" if problems else None
    if problems:
        raise CheckpointError(f"{problems[0]}; there is no other to resume from: type --overwrite to start again")
    if (path / "best.pt").exists():
        raise CheckpointError(f"{path}: has best.pt but no last.pt to resume from: type --overwrite to start again")
    return None, None


def read_config(path: Path) -> dict[str, Any]:
    """Return config.json of a run folder.

    Raises:
        CheckpointError: missing or not JSON.
    """
    try:
        values: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path / 'config.json'}: cannot be read: {error}; type --overwrite to start again"
        ) from error
    return values


def _new_folder(arch: str) -> Path:
    """Make runs/<date-time>-<arch>, with a number if it is taken."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{arch}"
    for number in range(1, 1000):
        path = Path(DEFAULT_PARENT) / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise files.cannot_write(path, error) from error
        return path
    raise WriteError(f"{DEFAULT_PARENT}/{name}: taken a thousand times; name a folder with --out")


def _locked(path: Path) -> Any:
    try:
        # Unbuffered: what a full disk refused would be tried again when the file is closed.
        file = (path / "run.lock").open("a+b", buffering=0)
    except OSError as error:
        raise files.cannot_write(path / "run.lock", error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        owner = (path / "run.lock").read_text(encoding="utf-8").strip()
        raise WriteError(f"--out {path}: process {owner} trains there; wait for it, or name another folder") from error
    except OSError as error:  # a file system without locks
        file.close()
        raise files.cannot_write(path / "run.lock", error) from error
    os.register_at_fork(after_in_child=file.close)  # else loader processes would hold the lock after a SIGKILL
    try:
        _write_owner(file, ROOM)
    except OSError as error:
        file.close()
        raise files.cannot_write(path / "run.lock", error, f"{ROOM:,}") from error
    return file


def _write_owner(file: Any, room: int = 0) -> None:
    """Write which process has the lock, and that many blanks."""
    file.truncate(0)
    content = f"{os.getpid()}\n".encode() + b" " * room
    if file.write(content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
