"""TorchScript: for C++ and older torch programs. Deprecated upstream; ONNX or pt2 is the better choice for new ones."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgcls.exporters.model import Exportable, reloaded
from imgcls.inference.model import Model
from imgcls.schema import CARD_NAME

jit: Any = torch.jit  # its functions have no annotations


class Checked(nn.Module):
    """A traced network accepts any type and size and gives wrong answers; this refuses them."""

    def __init__(self, traced: nn.Module, example: torch.Tensor) -> None:
        super().__init__()
        self.traced = traced
        self.size = example.shape[2]
        self.is_float = example.dtype.is_floating_point

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, S, S] of the exported type to logits [B, classes]."""
        assert images.dim() == 4 and images.shape[1] == 3, "images must be [B, 3, H, W]"
        assert images.shape[2] == self.size and images.shape[3] == self.size, (
            f"images must be {self.size} pixels square"
        )
        assert images.is_floating_point() == self.is_float, "images have the wrong type: see imgcls.json in this file"
        logits: torch.Tensor = self.traced(images)
        return logits


def write(exported: Exportable, path: Path) -> None:
    """Write a TorchScript archive."""
    with torch.no_grad():
        traced = jit.trace(exported.model, exported.example, check_trace=False)
        script = jit.script(Checked(traced, exported.example).eval())
    buffer = BytesIO()  # torch's own writer ends the process when the disk is full
    jit.save(script, buffer, _extra_files={CARD_NAME: exported.description})
    path.write_bytes(buffer.getbuffer())


def read(path: Path) -> Model:
    """Load the file as a program without imgcls would."""
    description = {CARD_NAME: ""}
    loaded = jit.load(str(path), map_location="cpu", _extra_files=description)
    return reloaded(loaded, description[CARD_NAME])
