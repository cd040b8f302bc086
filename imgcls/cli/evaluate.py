"""`imgcls evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from imgcls.cli.console import Console
from imgcls.cli.options import Given, JsonOption, with_settings
from imgcls.cli.text import interval, percent
from imgcls.config import EvaluateConfig
from imgcls.errors import counted
from imgcls.settings import from_dict

if TYPE_CHECKING:
    from imgcls.report import BinaryReport, EvalReport

MOST_COLUMNS = 12  # classes up to which the confusion matrix is printed
MOST_ROWS = 200  # classes up to which each has a row
WORST_ROWS = 20  # classes that have one when there are more


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


@with_settings(EvaluateConfig)
def evaluate(given: Given, json: JsonOption = None) -> None:
    """Measure how good a checkpoint is, and where it is wrong.

    imgcls evaluate --data dataset/ --ckpt best.pt

    imgcls evaluate --data dataset/ --out report/ --predictions worst-first.csv
    """
    config, console = from_dict(EvaluateConfig, given), Console(json)
    console.check_json(config.data, [config.ckpt, config.predictions])
    config.check_paths()
    from imgcls.cli.progress import Progress
    from imgcls.engine.assess.evaluate import evaluate_config

    progress = Progress(console)
    try:
        evaluation = evaluate_config(config, progress)
    finally:
        progress.close()
    if config.threshold is not None:
        console.talk(
            "the tables, pictures and predictions are those of the most probable class, whatever the threshold"
        )
    show(evaluation.report, console)
    evaluation.write(config.out, config.predictions)
    if config.out is not None:
        console.talk(f"report and pictures: {config.out}")
    if config.predictions is not None:
        console.talk(f"predictions: {config.predictions}")
    console.write_json(evaluation.report.to_dict())


def show(report: EvalReport, console: Console) -> None:
    """Print what was evaluated, the tables, and last, where it is seen, the overall lines."""
    from imgcls.engine.assess.metrics import METRICS

    if report.origin is not None:
        console.say(str(report.origin))
    _show_classes(report, console)
    if report.confusion is not None and len(report.classes) <= MOST_COLUMNS:
        rows = [[name, *map(str, row)] for name, row in zip(report.classes, report.confusion, strict=True)]
        console.table("confusion matrix", ["true \\ predicted", *report.classes], rows)
    else:
        what = "confusion matrix" if report.confusion is not None else "list of confusion pairs"
        console.talk(f"the {what} of {len(report.classes)} classes is in what --out and --json write")
    if report.most_confused and len(report.classes) > 2:
        rows = [[row.class_name, row.predicted, str(row.images), percent(row.share)] for row in report.most_confused]
        console.table("most confused", ["class", "taken for", "images", "share of class"], rows)
    console.say("")
    if report.binary is not None:
        console.say(binary_line(report.binary))
    others = [(metric, getattr(report, metric.name)) for metric in METRICS if metric.name != "accuracy"]
    listed = [f", {metric.title} {shown_as(metric.shown, value)}" for metric, value in others if value is not None]
    seen = "" if report.seen_in_training is None else f", which the model was {report.seen_in_training}"
    console.say(
        f"accuracy {percent(report.accuracy)} (95 %: {interval(report.accuracy_interval)}) "
        f"on {counted(report.images, 'image')} ({report.split}{seen}){''.join(listed)}"
    )


def _show_classes(report: EvalReport, console: Console) -> None:
    from imgcls.engine.assess.metrics import AVERAGES, RATES

    shown = report.per_class
    if len(shown) > MOST_ROWS:
        measured = [row for row in shown if row.accuracy is not None]
        shown = tuple(sorted(measured, key=lambda row: (row.accuracy, -row.support))[:WORST_ROWS])
        console.talk(f"the {len(shown)} least accurate of {len(report.classes)} classes; --out and --json write all")
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
    console.table("per class", header, rows)


def binary_line(report: BinaryReport) -> str:
    """Return the two-class figures in one line."""
    rates = {name: rate(getattr(report, name)) for name in ("precision", "recall", "specificity", "f1")}
    listed = ", ".join(f"{'F1' if name == 'f1' else name} {value}" for name, value in rates.items())
    return (
        f"{report.positive} against {report.negative}: AUC {rate(report.auc)}; "
        f"at threshold {report.threshold:g}: accuracy {percent(report.accuracy)}, {listed}"
    )


def rate(share: float | None) -> str:
    """Format precision, recall and the like."""
    return "-" if share is None else f"{share:.3f}"


def shown_as(kind: str, value: float | None) -> str:
    """Format a figure as its metric says: as a percentage, a fraction or a loss."""
    if kind == "percent":
        return percent(value)
    return f"{value:.4f}" if kind == "loss" and value is not None else rate(value)
