"""Checkpoint files: torch zip archives of tensors and primitives, read without ever running code.

Knows what is in them, not what a network or a training run is.
"""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from imgcls import file_kind, paths
from imgcls.errors import CheckpointError, missing_extra, out_of_memory
from imgcls.files import replacing
from imgcls.schema import CARD_NAME, WITHIN_EPOCH, ModelCard, check_content, check_types

_FROM_WEIGHTS = "give one made by imgcls train, or start from its weights with imgcls train --weights"
_SAVE_PLAIN = "where it was made, type torch.save(model.state_dict(), 'weights.pth')"
_PICKLE_START = 4 << 20  # bytes in which a pickled model has named one of its modules

# What training scripts leave beside the weights, and a word for it. Nothing of it is imported or called: reading makes
# empty stand-ins, so that the tensors can be had without trusting the file any further.
SET_ASIDE = {
    "argparse.Namespace": "Namespace",
    "types.SimpleNamespace": "SimpleNamespace",
    "torch.torch_version.TorchVersion": "TorchVersion",
    **{
        f"pathlib{module}.{kind}": "path"
        for module in ("", "._local")
        for kind in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
    **{f"datetime.{kind}": kind for kind in ("date", "datetime", "time", "timedelta")},
    **{f"builtins.{kind}": kind for kind in ("dict", "float", "int", "list", "str")},  # a defaultdict's
    **{f"numpy.{module}.multiarray.scalar": "NumPy scalar" for module in ("core", "_core")},
    **{f"numpy.{module}.multiarray._reconstruct": "NumPy array" for module in ("core", "_core")},
    "numpy.ndarray": "NumPy array",
    "numpy.dtype": "NumPy type",
}


class _StandIn:
    """Takes whatever a pickle hands to an object, and keeps none of it."""

    def __new__(cls, *_: Any) -> _StandIn:
        return object.__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def _new_dict(*_: Any) -> dict[Any, Any]:
    """Stand in for `collections.defaultdict`."""
    return {}


_STAND_INS: list[Any] = [(type(word, (_StandIn,), {}), name) for name, word in SET_ASIDE.items()]
_STAND_INS.append((_new_dict, "collections.defaultdict"))

BUFFER = 2**20  # torch makes 644 writes to save resnet18


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        card: everything but tensors.
        model: state dict with the network's own keys.
        holdout: sorted hashes of the names of held-out images, int64.
        training: what only `--resume` needs; empty in best.pt.
        holdout_content: hashes of their content in the same order, int64; empty in older checkpoints.
    """

    card: ModelCard
    model: dict[str, torch.Tensor]
    holdout: npt.NDArray[np.int64]
    training: dict[str, Any] = field(default_factory=dict)
    holdout_content: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        WriteError: the disk or folder refuses it.
    """
    values = checkpoint.card.to_dict() | {
        "model": {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.model.items()},
        "holdout": torch.from_numpy(checkpoint.holdout),
        "holdout_content": torch.from_numpy(checkpoint.holdout_content),
        **checkpoint.training,
    }
    # An own file object, because torch's keeps the room of a removed file on a full disk until the error is forgotten.
    with replacing(path, lambda: _size(values)) as temporary, temporary.open("wb", buffering=BUFFER) as file:
        _write(values, file)


def _write(values: dict[str, Any], file: Any) -> None:
    try:
        torch.save(values, file)
    except RuntimeError as error:  # torch goes on after a failed write, and complains of the file that is too short
        raise (error.__context__ or error) from None


class _Counted(io.RawIOBase):
    """A file that counts bytes and keeps none."""

    size = 0

    def write(self, content: Any) -> int:
        written = len(content)
        self.size += written
        return written


def _size(values: dict[str, Any]) -> int:
    counted = _Counted()
    _write(values, counted)
    return counted.size


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint, from whomever it comes.

    Raises:
        UsageError: no such file.
        CheckpointError: not a checkpoint of this tool, damaged, of a newer version, or with NaN weights.
    """
    if (kind := paths.check_checkpoint(path)) != "zip":
        if kind == "pickle":
            load_tensors(path)  # which knows better what is wrong with it
        raise CheckpointError(f"{path}: not an imgcls checkpoint, but weights alone; {_FROM_WEIGHTS}")
    _check_sums(path)
    values = _load(path)
    try:
        check_types(values, {"format": int, "imgcls_version": str})
        if values["format"] > WITHIN_EPOCH:
            raise CheckpointError(
                f"{path}: written by imgcls {values['imgcls_version']}, which is newer: update imgcls"
            )
        _put_average_first(values)
        check_types(values, {"model": dict, "holdout": torch.Tensor})
        card = ModelCard.from_dict(values)
        model: dict[str, torch.Tensor] = dict(values["model"])
        values = {"holdout_content": torch.empty(0, dtype=torch.int64)} | values
        check_types(values, {"holdout_content": torch.Tensor})
        check_finite({name: values[name] for name in ("holdout", "holdout_content")}, f"{path}")
        holdout, content = values["holdout"].numpy(), values["holdout_content"].numpy()
        check_content(holdout, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{path}: not an imgcls checkpoint ({what}); {_FROM_WEIGHTS}") from error
    check_finite(model, f"{path}")
    known = {*ModelCard.__dataclass_fields__, "model", "holdout", "holdout_content"}
    training = {name: value for name, value in values.items() if name not in known}
    return Checkpoint(card, model, holdout, training, content)


def _put_average_first(values: dict[str, Any]) -> None:
    """Bring an older last.pt into today's form, in which the figures are of `model`.

    With `--ema` its `model` were the raw weights, and `ema` the average that had been validated.
    """
    if "ema" in values and "raw" not in values:
        average = values.pop("ema")
        values["raw"] = values["model"] if average else None
        if average:
            values["model"] = {name.removeprefix("network."): tensor for name, tensor in average.items()}


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read any file of torch.save or safetensors that holds a dict of tensors; nothing in it can run.

    What training scripts leave beside the weights (`SET_ASIDE`) comes back as objects without content.

    Raises:
        UsageError: a safetensors file, and the package is not installed.
        CheckpointError: it is none, or damaged.
    """
    kind = file_kind.weights(path)
    if kind == "safetensors":
        return _load_safetensors(path)
    with torch.serialization.safe_globals(_STAND_INS):
        values = _load(path)
    if kind == "pickle" and _stored_bytes(values) > os.path.getsize(path):  # memory that was reserved, not yet touched
        raise CheckpointError(f"{path}: names larger tensors than it holds; do not trust this file")
    return values


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's protocol, which the error names too
            values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler and the zip reader raise anything on strangers' files
        if out_of_memory(error):
            raise
        raise CheckpointError(f"{path}: {_unread(path, str(error))}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {type(values).__name__}, not a dict of tensors; give a state dict")
    return values


def _stored_bytes(values: Any) -> int:
    """Add up the memory behind all tensors in nested containers, which may hold themselves."""
    sizes: dict[int, int] = {}
    pending, seen = [values], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, (list, tuple)):
            pending += value
        elif isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
            sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(sizes.values())


def _unread(path: str | os.PathLike[str], error: str) -> str:
    """Say why torch refused a file, from its words, which differ between its versions."""
    named = re.search(r"GLOBAL ([\w.]+)", error)
    if named or "weights_only" in error.lower():
        what = f": {named[1]}" if named else ""
        with open(path, "rb") as file:
            start = file.read(_PICKLE_START)
        if re.search(rb"torch\.nn\.modules\.\w", start):  # a module's class, which no state dict has
            return (
                f"holds a whole pickled model (it holds more than tensors and plain values{what}), which could run "
                "code: where it was made, type torch.save(model.state_dict(), 'weights.pth')"
            )
        if "Unsupported operand" in error:
            return f"cannot be read safely (another pickle protocol than torch.save's own); {_SAVE_PLAIN}"
        return f"cannot be read safely (it holds more than tensors and plain values{what}); {_SAVE_PLAIN}"
    return "cannot be read safely (damaged or cut short); get the file again"


def _load_safetensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise missing_extra("safetensors", "safetensors") from error
    try:
        with safe_open(path, framework="pt") as file:
            if CARD_NAME in (file.metadata() or {}):  # as bare weights it would lose its normalisation
                raise CheckpointError(f"{path}: is an exported safetensors file; give the checkpoint it was made from")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: a safetensors file that is damaged or cut short; get the file again") from error


def check_finite(state: dict[str, torch.Tensor], where: str) -> None:
    """Refuse NaN and infinite values, and what is no plain named tensor.

    Raises:
        CheckpointError: naming the first tensor that has one.
    """
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{where}: {name!r} is no name of a tensor; give a state dict")
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{where}: {name} is {type(tensor).__name__}, not a tensor; give a state dict")
        if not _is_plain(tensor):
            raise CheckpointError(f"{where}: {name} is no plain tensor (sparse, complex or empty); give a state dict")
        # The extremes are NaN when any value is; `isfinite` of all values took ten times as long.
        if tensor.is_floating_point() and tensor.numel() and not all(value.isfinite() for value in tensor.aminmax()):
            raise CheckpointError(f"{where}: {name} has NaN or infinite values; use an earlier checkpoint")


def _is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether every element has bytes of its own: a file of 1 kB can name a tensor of terabytes."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _check_sums(path: str | os.PathLike[str]) -> None:
    """Hold a checkpoint's members against their checksums, at which torch does not look.

    96 of 100 flipped bits were loaded as other weights, under the figures of the right ones.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises anything on damaged files
        if out_of_memory(error):
            raise
        raise CheckpointError(f"{path}: damaged ({error}); use another copy") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: damaged (the checksum of {damaged} is wrong); use another copy")
