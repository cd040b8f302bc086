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
from imgcls.schema import ModelCard

FORMAT = 1


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
        "model": {name: tensor.detach().cpu() for name, tensor in checkpoint.model.items()},
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
        raise UsageError(f"--ckpt {path}: {problem}; name a checkpoint such as runs/…/best.pt")
    _check_archive(path)
    values = load_tensors(path)
    try:
        if values["format"] > FORMAT:
            raise CheckpointError(
                f"{path}: written by imgcls {values['imgcls_version']}, which is newer: update imgcls"
            )
        card = ModelCard.from_dict(values)
        model: dict[str, torch.Tensor] = dict(values["model"])
        holdout = values["holdout"].numpy()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an imgcls checkpoint ({error!r}); give one made by imgcls train") from error
    check_finite(model, f"{path}")
    known = {*ModelCard.__dataclass_fields__, "model", "holdout"}
    return Checkpoint(card, model, holdout, {name: value for name, value in values.items() if name not in known})


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read any torch file that holds a dict, tensors and primitives only; nothing in it can run.

    Raises:
        CheckpointError: it is none, or damaged.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler and the zip reader raise anything on strangers' files
        reason = "it holds more than tensors and plain values" if "weights_only" in str(error).lower() else "damaged"
        raise CheckpointError(f"{path}: cannot be read safely ({reason}); give a file of tensors") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {type(values).__name__}, not a dict of tensors; give a state dict")
    return values


def check_finite(state: dict[str, torch.Tensor], where: str) -> None:
    """Refuse NaN and infinite values.

    Raises:
        CheckpointError: naming the first tensor that has one.
    """
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{where}: {name} is {type(tensor).__name__}, not a tensor; give a state dict")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{where}: {name} has NaN or infinite values; use an earlier checkpoint")


def _check_archive(path: str | os.PathLike[str]) -> None:
    """Hold the zip's table against the file: torch stores members uncompressed, so their sizes cannot exceed it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint ({error}); give one made by imgcls train") from error
    names = [member.filename for member in members]
    if len(set(names)) != len(names) or sum(member.file_size for member in members) > os.path.getsize(path):
        raise CheckpointError(f"{path}: not a checkpoint (its table of contents is forged); do not trust this file")
