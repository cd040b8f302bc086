"""ONNX: one file with weights, network and card, for onnxruntime and everything else that reads ONNX."""

from __future__ import annotations

import base64
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from imgcls.errors import ExportError, missing_extra
from imgcls.inference.model import Model
from imgcls.inference.onnx import HOLDOUT, HOLDOUT_CONTENT, load
from imgcls.schema import CARD_NAME

if TYPE_CHECKING:
    from imgcls.exporters.model import Exportable

MOST_BYTES = 2**31 - 2**20  # protobuf's limit for one file, less room for the graph


def write(exported: Exportable, path: Path) -> None:
    """Write an ONNX file.

    Raises:
        UsageError: the packages of the extra "onnx" are not installed.
        ExportError: the weights exceed what one ONNX file can hold.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 - the verification needs it; better said before the work than after
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise missing_extra(error.name or "onnx", "onnx") from error
    import torch

    from imgcls.exporters.pt2 import ANY_BATCH, program

    tensors = exported.model.state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > MOST_BYTES:
        raise ExportError(
            f"{exported.card.arch} has {size / 2**30:.2f} GiB of weights and one ONNX file holds 2 GiB: "
            "type --format pt2"
        )
    with contextlib.redirect_stdout(sys.stderr):
        graph = torch.onnx.export(
            program(exported),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=ANY_BATCH,  # for its name alone
            verbose=False,
        )
    assert graph is not None
    # torch writes the newest IR version that it knows (10); with the lowest that the operators allow (9 for opset 20),
    # older programs read the same file: onnxruntime 1.17 refuses 10.
    imports = [onnx.helper.make_opsetid(*imported) for imported in graph.model.opset_imports.items()]
    graph.model.ir_version = onnx.helper.find_min_ir_version_for(imports)
    metadata = graph.model.metadata_props
    metadata[CARD_NAME] = exported.description
    for key, hashes in ((HOLDOUT, exported.holdout), (HOLDOUT_CONTENT, exported.holdout_content)):
        metadata[key] = base64.b64encode(hashes.astype("<i8").tobytes()).decode("ascii")
    graph.save(path, external_data=False)


def read(path: Path) -> Model:
    """Load the file as `predict` and `evaluate` do, without torch, and as others would: optimised."""
    return load(str(path), "cpu")
