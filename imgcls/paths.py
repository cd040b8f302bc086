"""Paths as they are typed, judged before anything heavy is imported: what is read, and what will be written.

Reads no images and no tensors, and writes nothing.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from imgcls import file_kind, files, habits
from imgcls.errors import CheckpointError, UsageError, WriteError, closest
from imgcls.registry import DATASETS, EXPORTERS

MODELS = (".pt", ".onnx")  # how files end that predict and evaluate take
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

RUN_FILES = (
    *("best.pt", "best.damaged.pt", "last.pt", "last.prev.pt"),
    *("config.json", "metrics.jsonl", "curves.png", "run.lock", "tensorboard"),
)
DEFAULT_PARENT = "runs"  # of run folders


def check_source(text: str) -> None:
    """Refuse a `--data` that is neither a folder nor a data set by name.

    Raises:
        UsageError: with the folder or name that may have been meant.
    """
    if not text:
        raise UsageError("--data is missing: give a folder of images or a data set's name")
    if os.path.isdir(text) or text.partition(":")[0] in DATASETS:
        return
    if os.path.exists(text):
        raise UsageError(f"--data {text}: is a file; give the folder that holds the class folders")
    near = at_hand(text)
    hint = f" (did you mean '{near}'?)" if near else habits.value("--data", text, DATASETS)
    raise UsageError(f"--data {text}: no such folder or data set{hint}; names: {', '.join(DATASETS)}")


def check_model(path: str, flag: str = "") -> None:
    """Refuse what is neither a checkpoint nor an exported `.onnx` file, as far as its name and first bytes tell.

    Raises:
        UsageError: no such file.
        CheckpointError: another kind of file.
    """
    if path.lower().endswith(".onnx"):
        _check_file(path, flag, "an exported file such as best.onnx")
    else:
        check_checkpoint(path, flag)


def check_checkpoint(path: str | os.PathLike[str], flag: str = "") -> file_kind.Weights:
    """Refuse what is no checkpoint, as far as its name and first bytes tell.

    Args:
        path: the file.
        flag: the option that gave it, for the message.

    Returns:
        What kind of file it is: only a "zip" can be a checkpoint; of the others, only torch can say more.

    Raises:
        UsageError: no such file.
        CheckpointError: another kind of file.
    """
    _check_file(path, flag, "a checkpoint such as runs/…/best.pt")
    if (extension := Path(path).suffix[1:]) in EXPORTERS:
        raise CheckpointError(f"{path}: is an exported {extension} file; give the checkpoint it was made from")
    return file_kind.weights(path)


def check_weights(path: str) -> None:
    """Refuse a `--weights` that holds no tensors, as far as its first bytes tell.

    Raises:
        UsageError: no such file.
        CheckpointError: another kind of file.
    """
    if not os.path.isfile(path):
        problem = "is a folder; give a file in it" if os.path.isdir(path) else "no such file; give a file"
        raise UsageError(f"--weights {path}: {problem}, such as a state dict or an imgcls checkpoint")
    file_kind.weights(path)


def _check_file(path: str | os.PathLike[str], flag: str, wanted: str) -> None:
    if os.path.isfile(path):
        return
    near = None
    if os.path.isdir(path):
        problem, inside = "is a folder", Path(path) / "best.pt"
        near = str(inside) if inside.is_file() else None
    elif os.path.exists(path):
        problem = "is no regular file"
    else:
        problem, near = "no such file", at_hand(path, MODELS)
    hint = f" (did you mean '{near}'?)" if near else ""
    raise UsageError(f"{flag} {path}: {problem}{hint}; name {wanted}".lstrip())


def check_run_folder(out: str | None, data: str, *, again: bool) -> None:
    """Refuse a run folder that cannot be used.

    Args:
        out: the folder; None: one of its own below `runs`.
        data: the user's data folder.
        again: it may hold a run (`--resume`, `--overwrite`).

    Raises:
        UsageError: it is inside the data folder, or holds a run that nobody wants to go on.
        WriteError: it is a file, or it or a parent cannot be written.
    """
    path = Path(out or DEFAULT_PARENT)
    check_outside(path, data, "--out")
    if out is not None and os.path.isdir(path) and holds_run(path) and not again:
        raise UsageError(
            f"--out {path}: holds a run; type --resume to go on, --overwrite to replace it, or another --out"
        )
    check_new_folder(path)


def holds_run(path: Path) -> bool:
    """Tell whether a folder holds what a run saved, or a config.json of somebody else.

    A run that failed before its first epoch ended has nothing to lose: its folder may be used again.
    """
    if any(os.path.exists(path / name) for name in RUN_FILES if name not in ("run.lock", "config.json")):
        return True
    if not os.path.exists(path / "config.json"):
        return False
    try:
        return "status" not in json.loads((path / "config.json").read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return True


def check_new_folder(path: str | os.PathLike[str], flag: str = "--out") -> None:
    """Refuse a folder that cannot be made, or cannot be written where it exists; makes nothing.

    Raises:
        WriteError: it is a file, or it or a parent cannot be written.
    """
    path = Path(path)
    nearest = next(folder for folder in (path, *path.absolute().parents) if os.path.exists(folder))
    if not os.path.isdir(nearest):
        raise WriteError(f"{flag} {path}: {nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise WriteError(f"{flag} {path}: {nearest} cannot be written; name another folder")


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
    target = files.target_of(path)
    for other in kept:
        if str(target) == os.path.realpath(other):
            raise UsageError(f"{flag} {path}: is {other} itself; name another file")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.is_file() or not os.path.exists(path):
            files.prove_writable(target.parent)
    except OSError as error:
        raise files.cannot_write(Path(path), error) from error
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
    path, target = Path(path), files.target_of(path)
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
        with files.explained(path), target.open("rb") as file:
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
    here, there = (os.path.join(os.path.realpath(name), "") for name in (path, folder))
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
