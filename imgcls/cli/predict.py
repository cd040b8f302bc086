"""`imgcls predict`."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from imgcls.cli.options import AmpOption, CkptOption, DeviceOption, WorkersOption
from imgcls.cli.output import interval, percent, printable, show_finding, talk
from imgcls.errors import Exit, UsageError, nearest
from imgcls.files import csv_line

if TYPE_CHECKING:
    from imgcls.schema import ModelCard, Prediction

FORMATS = ("text", "json", "jsonl", "csv")


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
            help="Two classes: answer the second from this probability on; more: no answer below it.",
        ),
    ] = None,
    null: Annotated[bool, typer.Option("-0", "--null", help="Paths on stdin end with a NUL byte.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Images per forward pass.")] = 32,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    amp: AmpOption = False,
) -> None:
    """Name what is in pictures: one row per input, in input order: path, class, confidence.

    imgcls predict cat.jpg --ckpt best.pt
    """
    if format not in FORMATS:
        raise UsageError(f"--format {format}: not known{nearest(format, FORMATS)}; choose from: {', '.join(FORMATS)}")
    from imgcls.inference.inputs import CONVERTIBLE, WAYS, expand
    from imgcls.inference.model import load
    from imgcls.pixels.dim import finding

    ignored: Counter[str] = Counter()
    hidden: Counter[str] = Counter()
    empty: list[str] = []
    paths = expand(
        images,
        sys.stdin.buffer if "-" in images else None,
        null,
        lambda path: ignored.update([os.path.splitext(path)[1].lower() or "no extension"]),
        empty.append,
        lambda path: hidden.update([os.path.basename(path)]),
    )
    first = next((path for path in paths if path is not None), None)
    if first is None:
        convert = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common() if kind in CONVERTIBLE)
        advice = (
            f"no images found but {convert}: convert them to .jpg or .png" if convert else f"no images found; {WAYS}"
        )
        raise UsageError(f"{' '.join(printable(argument) for argument in images)}: {advice}")
    model = load(ckpt, device, amp)
    talk(described(ckpt, model.card))
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

    predictions = model.predict(
        itertools.chain([first], paths), top_k=top_k, threshold=threshold, batch_size=batch_size, workers=workers
    )
    WRITERS[format](checked(predictions), min(top_k, len(model.card.classes)))
    if dim:
        show_finding(finding(dim, f"{done} images"))
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


def described(ckpt: str, card: ModelCard) -> str:
    """Return one sentence on where a model comes from and how good it is."""
    real = os.path.relpath(os.path.realpath(ckpt)) if os.path.islink(ckpt) else ""
    metrics = card.metrics
    accuracy = "not validated"
    if metrics:
        accuracy = f"validation accuracy {percent(metrics['accuracy'])} ({interval(metrics['accuracy_interval'])})"
    weights = card.pretrained.used or "from scratch"
    return f"{ckpt}{f' -> {real}' if real else ''}: {card.arch}, epoch {card.epoch}, {accuracy}; {weights}"


def _text(predictions: Iterable[Prediction], top_k: int) -> None:
    for prediction in predictions:
        cells = [prediction.path, prediction.class_name or "", _number(prediction.confidence)]
        for score in prediction.others if top_k > 1 else ():
            cells += [score.class_name, _number(score.confidence)]
        print("\t".join(printable(cell) for cell in cells), flush=True)


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
        scores = [cell for score in prediction.others for cell in (score.class_name, _number(score.confidence))]
        scores = (scores + [""] * len(more))[: len(more)]
        row = [prediction.path, prediction.class_name or "", _number(prediction.confidence), *scores]
        sys.stdout.write(csv_line([*row, prediction.error or ""]))
        sys.stdout.flush()


WRITERS: dict[str, Callable[[Iterable[Prediction], int], None]] = {
    "text": _text,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
}


def _number(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.4f}"
