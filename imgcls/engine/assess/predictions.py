"""What an evaluation found out image by image, and the files made from it: tables as CSV, pictures, report.json.

It is of one process; training, which may have several, keeps sums only.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from imgcls import files, plots
from imgcls.data import draws
from imgcls.data.listing import Listing
from imgcls.data.pictures import Pictures
from imgcls.engine.assess.metrics import figures
from imgcls.engine.assess.validate import Answers
from imgcls.errors import counted
from imgcls.inference.model import softmax
from imgcls.report import EvalReport
from imgcls.schema import Preprocess

EXAMPLES = 18  # pictures of each kind that are drawn
CLASSES_DRAWN = 40  # in confusion.png, where there are too many for all

# One image: its class and the predicted one, the probabilities of these two and of the positive class, and the loss.
ROW = np.dtype(
    [("label", "i8"), ("predicted", "i8")]
    + [(name, "f8") for name in ("confidence", "class_confidence", "positive", "loss")]
)
Rows = npt.NDArray[np.void]


def rows(answers: Answers, positive: int) -> Rows:
    """Return a batch's rows.

    Args:
        answers: to the batch.
        positive: index of the class whose probability is kept for the ROC curve.
    """
    probabilities = softmax(answers.logits.cpu().numpy())
    found = np.empty(len(probabilities), dtype=ROW)
    found["label"] = answers.batch.labels.cpu().numpy()
    found["predicted"] = answers.predicted.cpu().numpy()
    every = np.arange(len(found))
    found["confidence"] = probabilities[every, found["predicted"]]
    found["class_confidence"] = probabilities[every, found["label"]]
    found["positive"] = probabilities[:, positive]
    found["loss"] = answers.losses.cpu().numpy()
    return found


def worst_first(found: Rows) -> npt.NDArray[np.int64]:
    """Return indices, int64 [n]: the least likely true class first."""
    return np.argsort(-found["loss"], kind="stable")


def write_predictions(path: str, found: Rows, listing: Listing, classes: tuple[str, ...]) -> None:
    """Write one CSV row for each image, worst first.

    Raises:
        WriteError: the disk or folder refuses it.
    """
    lines = [files.csv_line(["path", "class", "predicted", "correct", "confidence", "class_confidence", "loss"])]
    for index in worst_first(found):
        row = found[index]
        names = classes[row["label"]], classes[row["predicted"]]
        numbers = (f"{row[name]:.6f}" for name in ("confidence", "class_confidence", "loss"))
        lines.append(files.csv_line([listing.images.path(index), *names, int(names[0] == names[1]), *numbers]))
    files.write_text(path, "".join(lines))


def metrics_table(report: EvalReport) -> str:
    """Return two lines of CSV, the names and the values of every figure over all images."""
    of = {} if report.origin is None else {"checkpoint": report.origin.checkpoint, "where": report.origin.where}
    row = of | {"split": report.split, "images": report.images} | figures(report)
    return files.csv_line(row) + files.csv_line(row.values())


def write_folder(folder: Path, report: EvalReport, found: Rows, listing: Listing, preprocess: Preprocess) -> None:
    """Write report.json, metrics.csv, confusion.png, examples.png and, for two classes, roc.png.

    Raises:
        WriteError: the disk or folder refuses one.
    """
    older_curve = False
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        older_curve = bool(json.loads((folder / "report.json").read_text(encoding="utf-8"))["binary"])
    images = f"{report.split}: {counted(report.images, 'image')}"
    caption = _caption(report)
    with contextlib.ExitStack() as stack:  # an interruption leaves all files of the older report, or none

        def begun(name: str) -> Path:
            return stack.enter_context(files.replacing(folder / name))

        files.write_json(begun("report.json"), report.to_dict())
        files.write_text(begun("metrics.csv"), metrics_table(report))
        title = f"{images}, accuracy {100 * report.accuracy:.1f} %"
        plots.save(_confusion(report, title, caption), begun("confusion.png"))
        sections = _examples(found, listing, preprocess)
        plots.save(plots.examples(sections, report.classes, caption), begun("examples.png"))
        if report.binary is not None:
            plots.save(plots.roc(report.binary, report.classes, images, caption), begun("roc.png"))
    if older_curve and report.binary is None:
        with contextlib.suppress(OSError):
            (folder / "roc.png").unlink()  # it belonged to the report that was just replaced


def _caption(report: EvalReport) -> str:
    """Say in two lines of a picture's width what was evaluated."""
    if (of := report.origin) is None:
        return ""
    model, where = (plots.shortened(plots.drawable(path), 40) for path in (of.file, of.where))
    return f"{model} ({of.arch}, {of.reached})\non {where}, {of.date}"


def _confusion(report: EvalReport, title: str, caption: str) -> Figure:
    """Draw the confusion matrix, or where there is none for the number of classes, the part that shows most."""
    if report.confusion is not None:
        return plots.confusion(report.confusion, report.classes, title, caption)
    wrong_first = sorted(report.confusion_pairs, key=lambda pair: (pair.class_name == pair.predicted, -pair.images))
    chosen = set[str]()
    for pair in wrong_first:
        if len(chosen) < CLASSES_DRAWN:
            chosen |= {pair.class_name, pair.predicted}
    rows = [row for row in report.per_class if row.class_name in chosen]
    number_of = {row.class_name: number for number, row in enumerate(rows)}
    table = np.zeros((len(rows), len(rows)), dtype=np.int64)
    for pair in report.confusion_pairs:
        if pair.class_name in number_of and pair.predicted in number_of:
            table[number_of[pair.class_name], number_of[pair.predicted]] = pair.images
    title += f"\nthe {len(rows)} most confused of {len(report.classes)} classes"
    return plots.confusion(table.tolist(), list(number_of), title, caption, [row.support for row in rows])


def _examples(found: Rows, listing: Listing, preprocess: Preprocess) -> list[plots.Examples]:
    order = np.lexsort((-found["loss"], -found["confidence"]))  # by the figure that is shown
    wrong = order[found["predicted"][order] != found["label"][order]]
    right = np.flatnonzero(found["predicted"] == found["label"])
    some = order[np.isin(order, right[draws.sample(0, len(right), EXAMPLES)])]
    shown = (
        (f"wrong: {min(EXAMPLES, len(wrong))} of {len(wrong)}, most confident first", wrong[:EXAMPLES]),
        (f"right: {len(some)} of {len(right)}, chosen at random, most confident first", some),
    )

    pictures = Pictures(listing.images, preprocess)

    def section(heading: str, indices: npt.NDArray[Any]) -> plots.Examples:
        return plots.Examples(
            heading=heading,
            images=np.stack([pictures[index] for index in indices.tolist()]),
            labels=found["label"][indices].tolist(),
            predicted=found["predicted"][indices].tolist(),
            confidence=found["confidence"][indices].tolist(),
            files=[os.path.basename(listing.images.path(index)) for index in indices.tolist()],
        )

    return [section(heading, indices) for heading, indices in shown if len(indices)]
