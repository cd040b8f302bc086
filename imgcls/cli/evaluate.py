"""`imgcls evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imgcls.cli.options import (
    AmpOption,
    CkptOption,
    DataOption,
    DeviceOption,
    JsonOption,
    PositiveOption,
    WorkersOption,
)
from imgcls.cli.output import interval, percent, printable, show_table, talk, write_json
from imgcls.config import EVALUATED, check_word
from imgcls.errors import counted
from imgcls.files import check_result

if TYPE_CHECKING:
    from imgcls.schema import BinaryReport, EvalReport

MOST_COLUMNS = 12  # classes up to which the confusion matrix is printed
MOST_ROWS = 200  # classes up to which each has a row
WORST_ROWS = 20  # classes that have one when there are more


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    data: DataOption,
    ckpt: CkptOption = "best.pt",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="|".join(EVALUATED),
            show_default="test if there is one, else validation",
            help="Which images.",
            autocompletion=lambda: EVALUATED,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="DIR",
            show_default="none",
            help="Folder for report.json, metrics.csv, confusion.png, examples.png and, for two classes, roc.png.",
        ),
    ] = None,
    predictions: Annotated[
        str | None,
        typer.Option(
            "--predictions", metavar="F.csv", show_default="none", help="One row per image, the worst mistake first."
        ),
    ] = None,
    positive: PositiveOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0,
            max=1,
            metavar="P",
            show_default="0.5",
            help="Two classes: the answer is positive from this probability on.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Images per forward pass.")] = 64,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, show_default="all", help="Use at most this many images."),
    ] = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    amp: AmpOption = False,
    json: JsonOption = None,
) -> None:
    """Measure how good a checkpoint is, and where it is wrong.

    imgcls evaluate --data dataset/ --ckpt best.pt

    imgcls evaluate --data dataset/ --out report/ --predictions worst-first.csv
    """
    if split is not None:
        check_word("--split", split, EVALUATED)
    if json is not None and json != "-":
        check_result(json, "--json", data=data, kept=[ckpt, *([predictions] if predictions else [])], kind="JSON")
    from imgcls.cli.progress import Progress
    from imgcls.engine.assess.evaluate import measure

    progress = Progress()
    try:
        evaluation = measure(
            data,
            ckpt,
            split=split,
            positive=positive,
            threshold=threshold,
            out=out,
            predictions=predictions,
            batch_size=batch_size,
            workers=workers,
            device=device,
            amp=amp,
            limit=limit,
            report=progress,
        )
    finally:
        progress.close()
    if threshold is not None:
        talk("the tables, pictures and predictions are those of the most probable class, whatever the threshold")
    show(evaluation.report, to_stderr=json == "-")
    evaluation.write(out, predictions)
    if out is not None:
        talk(f"report and pictures: {out}")
    if predictions is not None:
        talk(f"predictions: {predictions}")
    if json is not None:
        write_json(evaluation.report.to_dict(), json)


def show(report: EvalReport, to_stderr: bool = False) -> None:
    """Print what was evaluated, the tables, and last, where it is seen, the overall lines."""
    from imgcls.engine.assess.metrics import AVERAGES, METRICS, RATES

    say = talk if to_stderr else print
    if report.origin is not None:
        say(printable(str(report.origin)))
    shown = report.per_class
    if len(shown) > MOST_ROWS:
        measured = [row for row in shown if row.accuracy is not None]
        shown = tuple(sorted(measured, key=lambda row: (row.accuracy, -row.support))[:WORST_ROWS])
        talk(f"the {len(shown)} least accurate of {len(report.classes)} classes; --out and --json write all")
    rows = [
        [row.class_name, str(row.support), percent(row.accuracy), interval(row.accuracy_interval)]
        + [shown_as(metric.shown, getattr(row, metric.name)) for metric in RATES]
        for row in shown
    ]
    rows += [
        [f"{name} avg", str(report.images), "", ""]
        + [shown_as(metric.shown, getattr(report, f"{name}_{metric.name}")) for metric in RATES]
        for name in AVERAGES
    ]
    header = ["class", "images", "accuracy", "95 %", *(metric.title for metric in RATES)]
    show_table("per class", header, rows, to_stderr)
    if report.confusion is not None and len(report.classes) <= MOST_COLUMNS:
        rows = [[name, *map(str, row)] for name, row in zip(report.classes, report.confusion, strict=True)]
        show_table("confusion matrix", ["true \\ predicted", *report.classes], rows, to_stderr)
    else:
        what = "confusion matrix" if report.confusion is not None else "list of confusion pairs"
        talk(f"the {what} of {len(report.classes)} classes is in what --out and --json write")
    if report.most_confused and len(report.classes) > 2:
        rows = [[row.class_name, row.predicted, str(row.images), percent(row.share)] for row in report.most_confused]
        show_table("most confused", ["class", "taken for", "images", "share of class"], rows, to_stderr)
    say("")
    if report.binary is not None:
        say(binary_line(report.binary))
    others = [(metric, getattr(report, metric.name)) for metric in METRICS if metric.name != "accuracy"]
    listed = [f", {metric.title} {shown_as(metric.shown, value)}" for metric, value in others if value is not None]
    seen = "" if report.seen_in_training is None else f", which the model was {report.seen_in_training}"
    say(
        f"accuracy {percent(report.accuracy)} (95 %: {interval(report.accuracy_interval)}) "
        f"on {counted(report.images, 'image')} ({report.split}{seen}){''.join(listed)}"
    )


def binary_line(report: BinaryReport) -> str:
    """Return the two-class figures in one line."""
    rates = {name: rate(getattr(report, name)) for name in ("precision", "recall", "specificity", "f1")}
    listed = ", ".join(f"{'F1' if name == 'f1' else name} {value}" for name, value in rates.items())
    return (
        f"{printable(report.positive)} against {printable(report.negative)}: AUC {rate(report.auc)}; "
        f"at threshold {report.threshold:g}: accuracy {percent(report.accuracy)}, {listed}"
    )


def rate(fraction: float | None) -> str:
    """Format precision, recall and the like."""
    return "-" if fraction is None else f"{fraction:.3f}"


def shown_as(kind: str, value: float | None) -> str:
    """Format a figure as its metric says: as a percentage, a fraction or a loss."""
    if kind == "percent":
        return percent(value)
    return f"{value:.4f}" if kind == "loss" and value is not None else rate(value)
