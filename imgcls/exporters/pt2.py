"""pt2: torch's own exported program, for Python with torch alone and for ahead-of-time compilation."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from imgcls.exporters.model import Exportable, reloaded
from imgcls.inference.model import Model
from imgcls.schema import CARD_NAME

ANY_BATCH = ({0: Dim("batch")},)  # dynamic shapes of the one argument


def program(exported: Exportable) -> ExportedProgram:
    """Return the network as a graph with any number of images per batch."""
    return torch.export.export(exported.model, (exported.example,), dynamic_shapes=ANY_BATCH)


def write(exported: Exportable, path: Path) -> None:
    """Write a pt2 archive."""
    buffer = BytesIO()  # torch's own writer ends the process when the disk is full
    torch.export.save(program(exported), buffer, extra_files={CARD_NAME: exported.description})
    path.write_bytes(buffer.getbuffer())


def read(path: Path) -> Model:
    """Load what `write` has just written. Never for a stranger's file: torch may unpickle what is in it."""
    description = {CARD_NAME: ""}
    with path.open("rb") as file:  # torch minds the extension of a path
        loaded = torch.export.load(file, extra_files=description)
    return reloaded(loaded.module(), description[CARD_NAME])
