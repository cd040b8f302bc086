"""`imgcls predict`."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from imgcls.cli.console import Console
from imgcls.cli.options import Given, with_settings
from imgcls.cli.text import interval, percent, printable
from imgcls.config import PredictConfig
from imgcls.errors import Exit, UsageError, counted
from imgcls.files import csv_line
from imgcls.settings import from_dict

if TYPE_CHECKING:
    from imgcls.inference.model import Model
    from imgcls.schema import ModelCard, Prediction

# How files begin that somebody might pipe in: images, documents, archives (checkpoints too); no list of paths does.
NO_PATHS = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|BM.{4}\0\0\0\0|II\*\0|MM\0\*|....ftyp|%PDF-|PK\x03\x04"
    rb"|\x1f\x8b|\x28\xb5\x2f\xfd|BZh\d1AY|P[1-7][ \n]\s*(#.*\n\s*)*\d+\s+\d+\s",
    re.DOTALL,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(predict)


@with_settings(PredictConfig)
def predict(
    given: Given,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders (recursive), globs, or - for stdin.")
    ],
    null: Annotated[bool, typer.Option("-0", "--null", help="Paths on stdin end with a NUL byte.")] = False,
) -> None:
    """Name what is in pictures: one row per input, in input order: path, class, confidence.

    imgcls predict cat.jpg --ckpt best.pt
    """
    config, console = from_dict(PredictConfig, given), Console()
    config.check_paths()
    from imgcls.inference.model import load

    inputs = Inputs(images, null)
    groups, few = inputs.groups()
    model = load(config.ckpt, config.device, config.amp, few)
    _introduce(model, config, console)
    answers = Answers(console)
    options = {name: getattr(config, name) for name in ("top_k", "threshold", "positive", "batch_size", "workers")}
    predictions = itertools.chain.from_iterable(model.predict(paths, **options) for paths in groups)
    for part in WRITERS[config.format](answers.seen(predictions), min(config.top_k, len(model.card.classes))):
        console.write(part)
    answers.conclude()
    inputs.conclude(console)
    if model.at_once is not None:
        console.talk(f"note: memory was short; --batch-size {model.at_once} is what it was enough for")
    if answers.failed or inputs.empty:
        raise typer.Exit(Exit.SOME_FAILED)


class Inputs:
    """What the user named, and what was left out of it.

    Attributes:
        empty: arguments that gave no path.
    """

    def __init__(self, arguments: list[str], null_separated: bool) -> None:
        self._arguments, self._null_separated = arguments, null_separated
        self._ignored: Counter[str] = Counter()
        self._hidden: Counter[str] = Counter()
        self.empty: list[str] = []

    def groups(self) -> tuple[Iterator[Iterable[str]], bool]:
        """Return the paths of the images, each group answered before the next is read, and whether they are a handful.

        Raises:
            UsageError: there is none.
        """
        from imgcls.inference.inputs import CONVERTIBLE, WAYS, begun, expand
        from imgcls.inference.pool import HANDFUL

        groups = expand(
            self._arguments,
            _paths_on_stdin() if "-" in self._arguments else None,
            self._null_separated,
            lambda path: self._ignored.update([os.path.splitext(path)[1].lower() or "no extension"]),
            self.empty.append,
            lambda path: self._hidden.update([os.path.basename(path)]),
        )
        first, groups = begun(groups, HANDFUL + 1)
        if not first:
            kinds = self._ignored.most_common()
            convert = ", ".join(f"{count} {kind}" for kind, count in kinds if kind in CONVERTIBLE)
            found = f"no images found but {convert}: convert them to .jpg or .png" if convert else None
            named = " ".join(printable(argument) for argument in self._arguments)
            raise UsageError(f"{named}: {found or f'no images found; {WAYS}'}")
        return groups, len(first) <= HANDFUL and "-" not in self._arguments

    def conclude(self, console: Console) -> None:
        """Say what was left out."""
        from imgcls.inference.inputs import WAYS

        for argument in self.empty:
            console.talk(f"error: {argument}: no images there; {WAYS}")
        if self._ignored:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self._ignored.most_common())
            console.talk(
                f"note: files without an image extension were left out ({kinds}); name them to have them tried"
            )
        if self._hidden:
            most = self._hidden.most_common(10)
            names = ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in most)
            console.talk(f"note: hidden folders were left out ({names}); name them to have them searched")


class Answers:
    """What is to be said of the answers beside their rows.

    Attributes:
        failed: images that could not be read.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._dim: list[str] = []
        self._done = 0
        self.failed = 0

    def seen(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Pass the answers on; of those that failed, say why."""
        for prediction in predictions:
            self._done += 1
            if prediction.dim:
                self._dim.append(prediction.path)
            if prediction.error is not None:
                self.failed += 1
                self._console.talk(f"error: {prediction.error}")
            yield prediction

    def conclude(self) -> None:
        """Say which pictures came out nearly black."""
        from imgcls.pixels.dim import finding

        if self._dim:
            self._console.finding(finding(self._dim, counted(self._done, "image")))


def _introduce(model: Model, config: PredictConfig, console: Console) -> None:
    """Say which model answers, and how."""
    from imgcls.inference.model import positive_index

    classes = model.card.classes
    index = 1 if config.positive is None else positive_index(classes, config.positive, config.ckpt)
    console.talk(described(config.ckpt, model.card))
    if len(classes) == 2 and (config.threshold is not None or config.positive is not None):
        cut = 0.5 if config.threshold is None else config.threshold
        console.talk(f"{classes[index]} from probability {cut:g} on, else {classes[1 - index]}")
    if config.amp:
        console.talk("mixed precision: answers may differ slightly from float32")


def _paths_on_stdin() -> BinaryIO:
    """Return standard input, unless it brings a picture or an archive, whose bytes would be taken for paths."""
    raw = sys.stdin.buffer
    stdin = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]
    start = stdin.peek()
    if NO_PATHS.match(start) or (b"\0" in start and re.search(rb"[\1-\10\16-\32]", start)):
        raise UsageError("-: standard input brings the content of a file, not paths; type imgcls predict FILE")
    return stdin


def described(ckpt: str, card: ModelCard) -> str:
    """Return one sentence on where a model comes from and how good it is."""
    real = os.path.relpath(os.path.realpath(ckpt)) if os.path.islink(ckpt) else ""
    metrics = card.metrics
    accuracy = "not validated"
    if metrics:
        accuracy = f"validation accuracy {percent(metrics['accuracy'])} ({interval(metrics['accuracy_interval'])})"
    weights = card.pretrained.used or "from scratch"
    return f"{ckpt}{f' -> {real}' if real else ''}: {card.arch}, {card.reached}, {accuracy}; {weights}"


def _cells(prediction: Prediction, top_k: int) -> list[str]:
    """Return path, class and confidence, and the pairs of `--top-k`, empty where there is none: 1 + 2 K cells.

    The first pair is the answer; below a threshold it is the likeliest class's, with the name left out. The others
    follow by probability, so that a column means the same in every row.
    """
    cells = [prediction.path, prediction.class_name or "", _number(prediction.confidence)]
    for score in prediction.others[: top_k - 1]:
        cells += [score.class_name, _number(score.confidence)]
    return cells + [""] * (1 + 2 * top_k - len(cells))


def _text(predictions: Iterable[Prediction], top_k: int) -> Iterator[str]:
    for prediction in predictions:
        yield "\t".join(printable(cell) for cell in _cells(prediction, top_k)) + "\n"


def _jsonl(predictions: Iterable[Prediction], top_k: int) -> Iterator[str]:
    for prediction in predictions:
        yield json.dumps(prediction.to_dict()) + "\n"


def _json(predictions: Iterable[Prediction], top_k: int) -> Iterator[str]:
    separator = "["
    for prediction in predictions:
        yield f"{separator}\n  {json.dumps(prediction.to_dict())}"
        separator = ","
    yield "\n]\n"


def _csv(predictions: Iterable[Prediction], top_k: int) -> Iterator[str]:
    more = [f"{name}_{rank}" for rank in range(2, top_k + 1) for name in ("class", "confidence")]
    yield csv_line(["path", "class", "confidence", *more, "error"])
    for prediction in predictions:
        yield csv_line([*_cells(prediction, top_k), prediction.error or ""])


# Form of the rows -> the text of the answers and how many classes each has, in parts that can be written at once.
WRITERS: dict[str, Callable[[Iterable[Prediction], int], Iterator[str]]] = {
    "text": _text,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
}


def _number(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.4f}"
