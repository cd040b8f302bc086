"""The onnxruntime back end: an exported `.onnx` file turned into a function from images to logits, without torch.

The file carries its own model card, which this module reads and holds against the network's shapes.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from imgcls.config import parse_device
from imgcls.errors import CheckpointError, UsageError, missing_extra, out_of_memory
from imgcls.inference.model import Logits, Model
from imgcls.machine import compute_threads
from imgcls.pixels.decode import Pixels
from imgcls.schema import CARD_NAME, ModelCard, check_content

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

HOLDOUT = "imgcls.holdout"  # key of the file's metadata, beside the card
HOLDOUT_CONTENT = "imgcls.holdout_content"  # not in older files
TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


@dataclass(frozen=True)
class Network:
    """What `Model.logits` of such a file is: a session and what it takes.

    Attributes:
        path: the file.
        session: onnxruntime's; several threads may run it at once.
        levels: whether it takes uint8 levels 0..255; else float32 0..1.
        classes: how many logits it gives for an image.
    """

    path: str
    session: InferenceSession
    levels: bool
    classes: int

    def __call__(self, pixels: Pixels) -> Logits:
        """Return logits float32 [batch, classes] of images uint8 [batch, height, width, 3].

        Raises:
            CheckpointError: the network cannot be run, or its answer is of another shape.
            MemoryError: there is not enough for so many images.
        """
        batch: Any = pixels.transpose(0, 3, 1, 2)
        if not self.levels:
            batch = batch.astype(np.float32) / 255
        (images,), (answer,) = self.session.get_inputs(), self.session.get_outputs()
        try:
            result: Logits = self.session.run([answer.name], {images.name: np.ascontiguousarray(batch)})[0]
        except Exception as error:  # onnxruntime has a class for each kind of failure
            if out_of_memory(error):
                raise MemoryError(_first_line(error)) from error
            problem = f"cannot be run on {len(batch)} images: {_first_line(error)}"
            raise CheckpointError(f"{self.path}: {problem}") from error
        if result.shape != (len(batch), self.classes):
            problem = f"gives logits {list(result.shape)} for {len(batch)} images"
            raise CheckpointError(f"{self.path}: {problem}; export the checkpoint again")
        return result


def load(path: str, device: str = "auto", amp: bool = False, few: bool = False) -> Model:
    """Load an exported ONNX file; see `imgcls.inference.model.load`.

    Args:
        path: the file.
        device: "auto", "cpu", "cuda" or "cuda:N".
        amp: not for these files.
        few: without onnxruntime's optimisation, which takes 0.08 s for resnet18 and saves 8 ms for each image.

    Raises:
        UsageError: onnxruntime is not installed or has no such device, or `amp` is asked for.
        CheckpointError: the file is damaged, or was not made by `imgcls export`.
    """
    if amp:
        raise UsageError(f"--amp: {path} runs in float32; drop --amp")
    session = _open(path, device, optimised=not few)
    try:
        metadata = session.get_modelmeta().custom_metadata_map
        card = ModelCard.from_dict(json.loads(metadata[CARD_NAME]))
        holdout = _hashes(metadata[HOLDOUT])
        content = _hashes(metadata.get(HOLDOUT_CONTENT, ""))
        check_content(holdout, content)
        network = Network(path, session, _takes_levels(session, card), len(card.classes))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{path}: not made by imgcls export ({what}); export the checkpoint again") from error
    return Model(card, network, holdout, content)


def _hashes(text: str) -> npt.NDArray[np.int64]:
    return np.frombuffer(base64.b64decode(text), dtype="<i8")


def _takes_levels(session: InferenceSession, card: ModelCard) -> bool:
    """Hold a network's shapes and types against its card; return whether it takes uint8. KeyError or ValueError."""
    (images,), (answer,) = session.get_inputs(), session.get_outputs()
    size = card.preprocess.size
    if images.shape[1:] != [3, size, size] or answer.shape[1:] != [len(card.classes)]:
        raise ValueError(f"{images.shape} to {answer.shape} is not what its card says")
    levels = TYPES[images.type] == "uint8"
    if answer.type != "tensor(float)":
        raise ValueError(f"its answers are {answer.type}")
    return levels


def _open(path: str, device: str, optimised: bool) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx") from error
    if not os.path.isfile(path):
        problem = "is a folder" if os.path.isdir(path) else "is no regular file"
        raise UsageError(f"{path}: {problem}; name an exported file such as best.onnx")
    kind, index = parse_device(device)
    providers: list[Any] = ["CPUExecutionProvider"]
    if kind in ("auto", "cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        # TF32 is on unless told, and would make the answers differ from the checkpoint's.
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": index or 0, "use_tf32": 0}))
    elif kind not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: this onnxruntime runs on the CPU only; type --device cpu")
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what it has to say comes as an exception too
    options.intra_op_num_threads, _ = compute_threads()  # its own number ignores the process's affinity and quota
    # Threads that spin while they wait fight with our own that decode. On two cores, spinning and not, predict of 153
    # photographs took 3.58 and 3.56 s with resnet18, 1.11 and 1.04 s with mobilenet_v3_small, and beside a busy process
    # 6.0 and 5.8, 1.39 and 1.31 s; one image at a time in one process, mobilenet_v3_small 1.5 and 2.1 ms, busy 2.8 and
    # 2.0 ms. Medians of five and four.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # as above
        raise CheckpointError(
            f"{path}: not an ONNX model ({_first_line(error)}); export the checkpoint again"
        ) from error
    if kind == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise UsageError(f"--device {device}: onnxruntime cannot use this GPU; type --device cpu")
    return session


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
