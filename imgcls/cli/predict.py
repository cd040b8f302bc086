"""`imgcls predict`."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from imgcls.cli.options import AmpOption, CkptOption, DeviceOption, PositiveOption, WorkersOption
from imgcls.cli.output import interval, percent, printable, show_finding, talk
from imgcls.config import check_word
from imgcls.errors import Exit, UsageError, counted
from imgcls.files import csv_line

if TYPE_CHECKING:
    from imgcls.schema import ModelCard, Prediction

FORMATS = ("text", "json", "jsonl", "csv")

# How files begin that somebody might pipe in: images, documents, archives (checkpoints too); no list of paths does.
NO_PATHS = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|BM.{4}\0\0\0\0|II\*\0|MM\0\*|....ftyp|%PDF-|PK\x03\x04"
    rb"|\x1f\x8b|\x28\xb5\x2f\xfd|BZh\d1AY|P[1-7][ \n]\s*(#.*\n\s*)*\d+\s+\d+\s",
    re.DOTALL,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(predict)


def predict(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders (recursive), globs, or - for stdin.")
    ],
    ckpt: CkptOption = "best.pt",
    top_k: Annotated[int, typer.Option("--top-k", metavar="K", min=1, help="Classes per image.")] = 1,
    format: Annotated[
        str,
        typer.Option("--format", metavar="|".join(FORMATS), help="Form of the rows.", autocompletion=lambda: FORMATS),
    ] = "text",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="P",
            min=0,
            max=1,
            show_default="none",
            help="Two classes: the answer is positive from this probability on; more: no answer below it.",
        ),
    ] = None,
    positive: PositiveOption = None,
    null: Annotated[bool, typer.Option("-0", "--null", help="Paths on stdin end with a NUL byte.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Images per forward pass.")] = 32,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    amp: AmpOption = False,
) -> None:
    """Name what is in pictures: one row per input, in input order: path, class, confidence.

    imgcls predict cat.jpg --ckpt best.pt
    """
    check_word("--format", format, FORMATS)
    from imgcls.inference.inputs import CONVERTIBLE, WAYS, begun, expand
    from imgcls.inference.model import load, positive_index
    from imgcls.inference.pool import HANDFUL
    from imgcls.pixels.dim import finding

    ignored: Counter[str] = Counter()
    hidden: Counter[str] = Counter()
    empty: list[str] = []
    groups = expand(
        images,
        _paths_on_stdin() if "-" in images else None,
        null,
        lambda path: ignored.update([os.path.splitext(path)[1].lower() or "no extension"]),
        empty.append,
        lambda path: hidden.update([os.path.basename(path)]),
    )
    head, groups = begun(groups, HANDFUL + 1)
    if not head:
        convert = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common() if kind in CONVERTIBLE)
        advice = (
            f"no images found but {convert}: convert them to .jpg or .png" if convert else f"no images found; {WAYS}"
        )
        raise UsageError(f"{' '.join(printable(argument) for argument in images)}: {advice}")
    model = load(ckpt, device, amp, few=len(head) <= HANDFUL and "-" not in images)
    classes = model.card.classes
    index = 1 if positive is None else positive_index(classes, positive, ckpt)
    talk(described(ckpt, model.card))
    if len(classes) == 2 and (threshold is not None or positive is not None):
        cut = 0.5 if threshold is None else threshold
        talk(f"{classes[index]} from probability {cut:g} on, else {classes[1 - index]}")
    if amp:
        talk("mixed precision: answers may differ slightly from float32")
    done = failed = 0
    dim: list[str] = []

    def checked(predictions: Iterable[Prediction]) -> Iterable[Prediction]:
        nonlocal done, failed
        for prediction in predictions:
            done += 1
            if prediction.dim:
                dim.append(prediction.path)
            if prediction.error is not None:
                failed += 1
                talk(f"error: {prediction.error}")
            yield prediction

    predictions = (
        model.predict(
            paths, top_k=top_k, threshold=threshold, positive=positive, batch_size=batch_size, workers=workers
        )
        for paths in groups
    )
    WRITERS[format](checked(chain.from_iterable(predictions)), min(top_k, len(classes)))
    if dim:
        show_finding(finding(dim, counted(done, "image")))
    for argument in empty:
        talk(f"error: {argument}: no images there; {WAYS}")
    if ignored:
        kinds = ", ".join(f"{kind} {count}" for kind, count in ignored.most_common())
        talk(f"note: files without an image extension were left out ({kinds}); name them to have them tried")
    if hidden:
        names = ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in hidden.most_common(10))
        talk(f"note: hidden folders were left out ({names}); name them to have them searched")
    if failed or empty:
        raise typer.Exit(Exit.SOME_FAILED)


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
    return f"{ckpt}{f' -> {real}' if real else ''}: {card.arch}, epoch {card.epoch}, {accuracy}; {weights}"


def _cells(prediction: Prediction, top_k: int) -> list[str]:
    """Return path, class and confidence, and the pairs of `--top-k`, empty where there is none: 1 + 2 K cells.

    The first pair is the answer; below a threshold it is the likeliest class's, with the name left out. The others
    follow by probability, so that a column means the same in every row.
    """
    cells = [prediction.path, prediction.class_name or "", _number(prediction.confidence)]
    for score in prediction.others[: top_k - 1]:
        cells += [score.class_name, _number(score.confidence)]
    return cells + [""] * (1 + 2 * top_k - len(cells))


def _text(predictions: Iterable[Prediction], top_k: int) -> None:
    for prediction in predictions:
        print("\t".join(printable(cell) for cell in _cells(prediction, top_k)), flush=True)


def _jsonl(predictions: Iterable[Prediction], top_k: int) -> None:
    for prediction in predictions:
        print(json.dumps(prediction.to_dict()), flush=True)


def _json(predictions: Iterable[Prediction], top_k: int) -> None:
    separator = "["
    for prediction in predictions:
        print(f"{separator}\n  {json.dumps(prediction.to_dict())}", end="", flush=True)
        separator = ","
    print("\n]")


def _csv(predictions: Iterable[Prediction], top_k: int) -> None:
    more = [f"{name}_{place}" for place in range(2, top_k + 1) for name in ("class", "confidence")]
    sys.stdout.write(csv_line(["path", "class", "confidence", *more, "error"]))
    for prediction in predictions:
        sys.stdout.write(csv_line([*_cells(prediction, top_k), prediction.error or ""]))
        sys.stdout.flush()


WRITERS: dict[str, Callable[[Iterable[Prediction], int], None]] = {
    "text": _text,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
}


def _number(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.4f}"
