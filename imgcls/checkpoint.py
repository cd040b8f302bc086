"""Checkpoint files: torch zip archives of tensors and primitives, read without ever running code.

Knows what is in them, not what a network or a training run is.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from imgcls.errors import CheckpointError, UsageError
from imgcls.files import replacing
from imgcls.registry import EXPORTERS
from imgcls.schema import FORMAT, ModelCard, check_types


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        card: everything but tensors.
        model: state dict with the network's own keys.
        holdout: sorted hashes of the names of held-out images, int64.
        training: what only `--resume` needs; empty in best.pt.
    """

    card: ModelCard
    model: dict[str, torch.Tensor]
    holdout: npt.NDArray[np.int64]
    training: dict[str, Any] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        WriteError: the disk or folder refuses it.
    """
    values = checkpoint.card.to_dict() | {
        "model": {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.model.items()},
        "holdout": torch.from_numpy(checkpoint.holdout),
        **checkpoint.training,
    }
    with replacing(path) as temporary:
        try:
            torch.save(values, temporary)
        except RuntimeError as error:  # how torch's own writer reports a full disk
            raise OSError(None, " ".join(str(error).split())) from error


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint, from whomever it comes.

    Raises:
        UsageError: no such file.
        CheckpointError: not a checkpoint of this tool, damaged, of a newer version, or with NaN weights.
    """
    if not os.path.isfile(path):
        problem = "is a folder" if os.path.isdir(path) else "no such file"
        raise UsageError(f"{path}: {problem}; name a checkpoint such as runs/…/best.pt")
    if (kind := Path(path).suffix[1:]) in EXPORTERS:
        raise CheckpointError(f"{path}: is an exported {kind} file; give the checkpoint it was made from")
    _check_archive(path)
    values = load_tensors(path)
    try:
        check_types(values, {"format": int, "imgcls_version": str})
        if values["format"] > FORMAT:
            raise CheckpointError(
                f"{path}: written by imgcls {values['imgcls_version']}, which is newer: update imgcls"
            )
        check_types(values, {"model": dict, "holdout": torch.Tensor})
        card = ModelCard.from_dict(values)
        model: dict[str, torch.Tensor] = dict(values["model"])
        check_finite({"holdout": values["holdout"]}, f"{path}")
        holdout = values["holdout"].numpy()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{path}: not an imgcls checkpoint ({what}); give one made by imgcls train") from error
    check_finite(model, f"{path}")
    known = {*ModelCard.__dataclass_fields__, "model", "holdout"}
    return Checkpoint(card, model, holdout, {name: value for name, value in values.items() if name not in known})


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read any torch file that holds a dict, tensors and primitives only; nothing in it can run.

    Raises:
        CheckpointError: it is none, or damaged.
    """
    try:
        with open(path, "rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"  # what torch goes by; older files are plain pickles
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CheckpointError(f"{path}: cannot be read ({reason}); give a file of tensors") from error
    if is_archive:
        _check_archive(path)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler and the zip reader raise anything on strangers' files
        reason = "it holds more than tensors and plain values" if "weights_only" in str(error).lower() else "damaged"
        raise CheckpointError(f"{path}: cannot be read safely ({reason}); give a file of tensors") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {type(values).__name__}, not a dict of tensors; give a state dict")
    return values


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


def _check_archive(path: str | os.PathLike[str]) -> None:
    """Hold the zip's table against the file: torch stores members uncompressed, so their sizes cannot exceed it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises anything on strangers' files
        raise CheckpointError(f"{path}: not a checkpoint ({error}); give one made by imgcls train") from error
    names = [member.filename for member in members]
    if len(set(names)) != len(names) or sum(member.file_size for member in members) > os.path.getsize(path):
        raise CheckpointError(f"{path}: not a checkpoint (its table of contents is forged); do not trust this file")
