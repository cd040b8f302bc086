"""A trained model that answers for images: what `imgcls predict`, `imgcls.predict` and `imgcls.load` run.

Knows its card and a function from uint8 images to logits; the back end behind that function (torch or onnxruntime)
is named in `registry.BACKENDS` and imported only when a file of its kind is loaded.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgcls.config import PredictConfig
from imgcls.errors import ImageError, NonFiniteError, UsageError, nearest
from imgcls.inference.halving import Halving
from imgcls.inference.inputs import WAYS, expand
from imgcls.inference.pool import HANDFUL, Decoded, Picture, decoded
from imgcls.machine import available_cpus
from imgcls.pixels.decode import Pixels
from imgcls.pixels.dim import is_deep, nearly_black
from imgcls.registry import BACKENDS, resolve
from imgcls.schema import ModelCard, Prediction, Score

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rule:
    """How the probabilities of classes become one answer.

    Attributes:
        classes: their names.
        top_k: how many of them a prediction lists.
        threshold: two classes: the positive one is the answer from this probability on; more classes: below it
            there is no answer; None: the most probable class is.
        positive: index of the positive of two classes.
    """

    classes: tuple[str, ...]
    top_k: int = 1
    threshold: float | None = None
    positive: int = 1

    def prediction(self, path: str, probabilities: npt.NDArray[np.float64], dim: bool = False) -> Prediction:
        """Return the answer for an image.

        Args:
            path: its name.
            probabilities: of the classes, float64 [classes].
            dim: whether nearly nothing is left of it: see `pixels.dim`.
        """
        classes, threshold = self.classes, self.threshold
        order = np.argsort(-probabilities, kind="stable")[: self.top_k]
        top = tuple(Score(classes[index], float(probabilities[index])) for index in order)
        best = int(order[0])
        if threshold is not None and len(classes) == 2:
            best = self.positive if probabilities[self.positive] >= threshold else 1 - self.positive
        confidence = float(probabilities[best])
        if threshold is not None and len(classes) > 2 and confidence < threshold:
            return Prediction(path=path, confidence=confidence, top=top, below_threshold=True, dim=dim)
        return Prediction(path=path, class_name=classes[best], confidence=confidence, top=top, dim=dim)


@dataclass(frozen=True)
class Model:
    """A checkpoint ready to predict. Several threads may use it at once.

    Attributes:
        card: classes, preprocessing, metrics: what the checkpoint says of itself.
        logits: function from uint8 [batch, height, width, 3] to float32 [batch, classes].
        holdout: sorted hashes of the names of the images held out in training, int64.
        holdout_content: hashes of their content in the same order, int64; empty: not recorded.
    """

    card: ModelCard
    logits: Callable[[Pixels], Logits]
    holdout: npt.NDArray[np.int64]
    holdout_content: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def at_once(self) -> int | None:
        """How many images at a time memory was enough for; None: for as many as were asked for."""
        return self.logits.most if isinstance(self.logits, Halving) else None

    def predict(
        self,
        images: Picture | Iterable[Picture],
        *,
        top_k: int = 1,
        threshold: float | None = None,
        positive: str | None = None,
        batch_size: int = PredictConfig.batch_size,
        workers: int | None = None,
    ) -> Iterator[Prediction]:
        """Return an iterator over one Prediction per image, in order, failures included, as soon as its batch is done.

        Args:
            images: the path of a file, a PIL image, or an array uint8 [height, width, 3] in RGB or [height, width] in
                grey; or an iterable of these, read lazily.
            top_k: how many classes `Prediction.top` lists.
            threshold: two classes: the positive one is the answer from this probability on; more classes: below
                it there is no answer (`below_threshold`).
            positive: of two classes, the one that `threshold` is about, from 0.5 on unless that says otherwise; None:
                the second.
            batch_size: images per forward pass.
            workers: decoding threads; None: the CPUs this process may use, at most 8.

        Raises:
            UsageError: an option out of its bounds, something that is no image at all, or a `positive` that is no class
                or one of more than two.
            NonFiniteError: the network gives NaN or infinite logits.
            ResourceError: there is not memory enough for a single image; else a batch is halved until it fits.
        """
        # Held against the bounds of the command's options.
        PredictConfig(top_k=top_k, threshold=threshold, positive=positive, batch_size=batch_size, workers=workers)
        if workers is None:
            workers = min(8, available_cpus())
        index = 1 if positive is None else positive_index(self.card.classes, positive)
        threshold = 0.5 if positive is not None and threshold is None else threshold
        rule = Rule(self.card.classes, top_k, threshold, index)
        several: Any = [images] if _is_one(images) or not isinstance(images, Iterable) else images
        return self._predictions(decoded(several, self.card.preprocess, workers), batch_size, rule)

    def answers(self, frames: Pixels) -> npt.NDArray[np.float64]:
        """Return the probabilities of the classes, float64 [n, classes].

        Args:
            frames: network inputs, uint8 [n, size, size, 3], as `pixels.transform` makes them.

        Raises:
            NonFiniteError: the network gives NaN or infinite logits.
        """
        logits = self.logits(frames)
        if not np.isfinite(logits).all():
            raise NonFiniteError()
        return softmax(logits)

    def _predictions(self, items: Iterator[Decoded], batch_size: int, rule: Rule) -> Iterator[Prediction]:
        while batch := list(islice(items, batch_size)):
            frames = [pixels for _, pixels in batch if not isinstance(pixels, ImageError)]
            known = iter(self._known(np.stack(frames)) if frames else ())
            for path, pixels in batch:
                if isinstance(pixels, ImageError):
                    yield Prediction(path=path, error=str(pixels))
                else:
                    probabilities, black = next(known)
                    yield rule.prediction(path, probabilities, dim=black and is_deep(path))

    def _known(self, frames: Pixels) -> Iterator[tuple[npt.NDArray[np.float64], bool]]:
        """Return the probabilities of each frame, and whether it is nearly black."""
        return zip(self.answers(frames), nearly_black(frames, self.card.preprocess).tolist(), strict=True)


def positive_index(classes: Sequence[str], name: str, model: str = "the model") -> int:
    """Return the index of the positive of two classes.

    Raises:
        UsageError: there is no such class, or there are more than two.
    """
    if len(classes) != 2:
        raise UsageError(f"--positive is for two classes, and {model} has {len(classes)}; drop --positive")
    forms = [unicodedata.normalize("NFC", known) for known in classes]  # what was typed may be in another one
    if name not in classes and unicodedata.normalize("NFC", name) not in forms:
        raise UsageError(
            f"--positive {name}: {model} has no such class{nearest(name, classes)}; choose from: {', '.join(classes)}"
        )
    return classes.index(name) if name in classes else forms.index(unicodedata.normalize("NFC", name))


def softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Return probabilities float64 [batch, classes] of logits float32 [batch, classes]."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def predict(
    images: Picture | Iterable[Picture],
    ckpt: str | os.PathLike[str] = "best.pt",
    *,
    device: str = "auto",
    amp: bool = False,
    **options: Any,
) -> list[Prediction]:
    """Answer for images in one call: one Prediction for each, in order, failures included.

    Args:
        images: as `Model.predict` takes them; a path may also name a folder (its images, recursively) or be a glob.
        ckpt: as `load` takes it.
        device: likewise.
        amp: likewise.
        options: those of `Model.predict`.

    Raises:
        UsageError: as `load` and `Model.predict`; a folder or glob without images.
        CheckpointError: as `load` and `Model.predict`.
    """

    def refuse(argument: str) -> None:
        raise UsageError(f"{argument}: no images found; {WAYS}")

    def found() -> Iterator[Picture]:
        given: Any = [images] if _is_one(images) else images
        for image in given:
            if isinstance(image, (str, os.PathLike)):
                yield from chain.from_iterable(expand([os.fspath(image)], on_empty=refuse))
            else:
                yield image

    pictures = found()
    head = list(islice(pictures, HANDFUL + 1))
    model = load(ckpt, device, amp, few=len(head) <= HANDFUL)
    return list(model.predict(chain(head, pictures), **options))


def _is_one(images: object) -> bool:
    """Tell one image from several; an array of four axes is several."""
    return isinstance(images, (str, os.PathLike, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4)


def load(path: str | os.PathLike[str] = "best.pt", device: str = "auto", amp: bool = False, few: bool = False) -> Model:
    """Load a checkpoint for prediction.

    Args:
        path: a checkpoint of `imgcls train`, or an `.onnx` file of `imgcls export`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        amp: mixed precision, CUDA only; else float32 throughout.
        few: be ready soon rather than fast, for `pool.HANDFUL` images or none.

    Raises:
        UsageError: no such file, or no such device.
        CheckpointError: the file is not a checkpoint, or damaged.
    """
    config = PredictConfig(ckpt=os.fspath(path), device=device, amp=amp)
    config.check_paths()
    model: Model = resolve(backend(config.ckpt))(config.ckpt, device, amp, few)
    return replace(model, logits=Halving(model.logits, np.concatenate, lambda text: None))


def backend(path: str) -> str:
    """Return the entry of `registry.BACKENDS` for a file."""
    return BACKENDS.get(Path(path).suffix.lower(), BACKENDS[""])
