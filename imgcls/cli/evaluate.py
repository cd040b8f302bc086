"""`imgcls evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imgcls.cli.options import AmpOption, CkptOption, DataOption, DeviceOption, JsonOption, WorkersOption
from imgcls.cli.output import interval, percent, show_table, talk, write_json
from imgcls.errors import UsageError, nearest

if TYPE_CHECKING:
    from imgcls.schema import EvalReport

SPLITS = ("train", "val", "test")


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
            metavar="|".join(SPLITS),
            show_default="test if there is one, else validation",
            help="Which images.",
            autocompletion=lambda: SPLITS,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images per forward pass.")] = 64,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, show_default="all", help="Use at most this many images.")
    ] = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    amp: AmpOption = False,
    json: JsonOption = None,
) -> None:
    """Measure overall and per-class accuracy of a checkpoint.

    imgcls evaluate --data dataset/ --ckpt best.pt
    """
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split}: not known{nearest(split, SPLITS)}; choose from: {', '.join(SPLITS)}")
    from imgcls.cli.progress import Progress
    from imgcls.engine.evaluate import evaluate as run

    progress = Progress()
    try:
        report = run(
            data,
            ckpt,
            split=split,
            batch_size=batch_size,
            workers=workers,
            device=device,
            amp=amp,
            limit=limit,
            report=progress,
        )
    finally:
        progress.close()
    show(report, to_stderr=json == "-")
    if json is not None:
        write_json(report.to_dict(), json)


def show(report: EvalReport, to_stderr: bool = False) -> None:
    """Print the overall line and the per-class table."""
    say = talk if to_stderr else print
    top5 = "" if report.top5 is None else f", top-5 {percent(report.top5)}"
    say(
        f"accuracy {percent(report.accuracy)} (95 %: {interval(report.accuracy_interval)}) on {report.images} images "
        f"({report.split}), loss {report.loss:.4f}, macro F1 {report.macro_f1:.3f}{top5}"
    )
    rows = [
        [row.class_name, str(row.support), percent(row.accuracy), interval(row.accuracy_interval)]
        for row in report.per_class
    ]
    show_table("per class", ["class", "images", "accuracy", "95 %"], rows, to_stderr)
