"""Pictures from plain data: numbers, names and uint8 arrays in, matplotlib Figure out; knows no models."""

from __future__ import annotations

import functools
import io
import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from imgcls.files import write_bytes
from imgcls.paths import KINDS
from imgcls.report import BinaryReport

Pixels = npt.NDArray[np.uint8]

# Fonts that cover what DejaVu does not; those that are installed are asked in turn.
WIDE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "Arial Unicode MS")


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as what the name says (PNG, JPEG, WebP, PDF, SVG; else PNG), whole or not at all.

    Raises:
        WriteError: the folder or disk refuses it.
    """
    ending = os.path.splitext(path)[1].lower()
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(content, format=ending[1:] if ending in KINDS["picture"] else "png")
    write_bytes(path, content.getvalue())


def curves(history: Sequence[dict[str, Any]], best: int | None = None) -> Figure:
    """Draw loss, accuracy and learning rate over the epochs of metrics.jsonl.

    Args:
        history: its lines.
        best: the epoch that was kept, to be marked.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained", dpi=110)
    epochs = [row["epoch"] for row in history]
    loss, accuracy, rate = figure.subplots(1, 3)
    for axis, name, key in ((loss, "loss", "loss"), (accuracy, "accuracy", "acc")):
        for split in ("train", "val"):
            values = [row[f"{split}_{key}"] for row in history]
            if any(value is not None for value in values):
                plotted = [math.nan if value is None else value for value in values]
                axis.plot(epochs, plotted, marker="o" if len(epochs) < 30 else "", markersize=3, label=split)
        axis.set_title(name)
    rates = [row["lr"] for row in history]
    rate.plot(epochs, rates, marker="o" if len(epochs) < 30 else "", markersize=3, color="tab:gray")
    rate.set_title("learning rate")
    if min(rates) > 0 and max(rates) >= 100 * min(rates):
        rate.set_yscale("log")
    else:
        rate.set_ylim(bottom=0)
    accuracy.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    known = [row[key] for row in history for key in ("train_acc", "val_acc") if row[key] is not None]
    if known:  # two points of room at least, so that nothing looks like a leap that is none
        room = max(0.02, 0.08 * (max(known) - min(known)))
        accuracy.set_ylim(max(-0.004, min(known) - room), min(1.004, max(known) + room))
    for axis in (loss, accuracy, rate):
        if best is not None:
            axis.axvline(best, color="tab:green", linestyle="--", linewidth=1, label=f"best: epoch {best}")
        if axis.get_lines() and axis is not rate:
            axis.legend()
        axis.set_xlabel("epoch")
        axis.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
    return figure


def contact_sheet(images: Pixels, labels: Sequence[int], classes: Sequence[str]) -> Figure:
    """Draw pictures in a grid, each under the name of its class.

    Args:
        images: uint8 [n, height, width, 3].
        labels: indices into `classes`, one for each.
        classes: names.
    """
    names, note = readable(classes)
    figure = Figure(figsize=(12.8, 1.8 * -(-len(images) // 8) + 0.3 * bool(note)), layout="constrained", dpi=110)
    if note:
        figure.suptitle(note, fontsize=8)
    _grid(figure, images, [names[label] for label in labels], columns=8)
    return figure


@dataclass(frozen=True)
class Examples:
    """Predictions to be drawn: pictures uint8 [n, height, width, 3], and for each its classes, confidence and file."""

    heading: str
    images: Pixels
    labels: Sequence[int]
    predicted: Sequence[int]
    confidence: Sequence[float]
    files: Sequence[str]


def examples(sections: Sequence[Examples], classes: Sequence[str], caption: str = "") -> Figure:
    """Draw predictions section by section, each picture under its file, its true and its predicted class."""
    names, note = readable(classes, longest=16)
    rows = [-(-len(section.images) // 6) for section in sections]
    heights = [2.3 * count + 0.5 for count in rows]
    figure = Figure(figsize=(12, sum(heights) + 0.3 * bool(caption)), layout="constrained", dpi=110)
    parts = figure.subfigures(len(sections), 1, height_ratios=heights, squeeze=False)
    for part, section in zip(parts[:, 0], sections, strict=True):
        part.suptitle(section.heading + (f"   ({note})" if note else ""), fontsize=11, parse_math=False)
        titles = [
            f"{shortened(drawable(file), 24)}\n"
            f"true: {names[label]}\npredicted ({100 * confidence:.1f} %): {names[answer]}"
            for file, label, answer, confidence in zip(
                section.files, section.labels, section.predicted, section.confidence, strict=True
            )
        ]
        _grid(part, section.images, titles, columns=6)
    _captioned(figure, caption)
    return figure


def confusion(
    counts: Sequence[Sequence[int]],
    classes: Sequence[str],
    title: str,
    caption: str = "",
    images: Sequence[int] | None = None,
) -> Figure:
    """Draw a confusion matrix: a row for each true class, coloured by shares of the row, with counts where they fit.

    The colours follow the root of the share, so that rare mistakes are seen among many classes.

    Args:
        counts: (i, j) counts images of class i predicted as class j.
        classes: names; above 200 there is no room for them, and indices are drawn.
        title: what was found.
        caption: what was evaluated.
        images: of each class, where these are some of the classes only; None: the sums of the rows.
    """
    table = np.asarray(counts, dtype=np.int64)
    whole = table.sum(axis=1) if images is None else np.asarray(images)
    share = table / np.maximum(whole, 1)[:, None]
    cell = min(0.7, 16 / len(classes))  # inches
    side = cell * len(classes)
    names, note = readable(classes)
    figure = Figure(figsize=(max(side + 3.5, 6.0), side + 2.5), layout="constrained", dpi=120)
    axis = figure.subplots()
    picture = axis.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    bar = figure.colorbar(picture, shrink=min(1.0, 5 / side), aspect=30)
    bar.set_label("share of the true class")
    figure.suptitle(title + (f"\n{note}" if note else ""), fontsize=10, parse_math=False)
    has_names = len(classes) <= 200
    axis.set_xlabel("predicted class" if has_names else "index of the predicted class")
    axis.set_ylabel("true class" if has_names else "index of the true class")
    if has_names:
        size = min(9.0, 72 * cell * 0.7)
        text: dict[str, Any] = {"fontsize": size, "fontfamily": _families(), "parse_math": False}
        upright = len(classes) > 30
        slant = {"rotation": 90} if upright else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(range(len(names)), names, **text, **slant)
        axis.set_yticks(range(len(names)), names, **text)
    digits = len(str(table.max()))
    size = min(10.0, 72 * cell / (digits + 1) * 1.4)
    if size >= 6 and np.count_nonzero(table) <= 2500:  # more would take 10 s to draw
        for (row, column), count in np.ndenumerate(table):
            if count or len(classes) <= 12:
                colour = "white" if share[row, column] > 0.3 else "black"
                axis.text(column, row, str(count), ha="center", va="center", fontsize=size, color=colour)
    _captioned(figure, caption)
    return figure


def roc(report: BinaryReport, classes: Sequence[str], title: str, caption: str = "") -> Figure:
    """Draw the ROC curve of a two-class evaluation, with the point of its threshold."""
    names, note = readable(classes, longest=16)
    positive, negative = (names[classes.index(name)] for name in (report.positive, report.negative))
    figure = Figure(figsize=(5.5, 5.5), layout="constrained", dpi=120)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="tab:gray", linestyle=":", label="chance")
    if report.roc is None:
        axis.text(0.98, 0.3, "no curve: one class has no images", ha="right")
    else:
        false_positive_rates, true_positive_rates, _ = zip(*report.roc, strict=True)
        axis.plot(false_positive_rates, true_positive_rates, label=f"AUC {report.auc:.3f}")
    if report.specificity is not None and report.recall is not None:
        where = (1 - report.specificity, report.recall)
        axis.plot(*where, marker="o", linestyle="", color="tab:red", label=f"threshold {report.threshold:g}")
    text: dict[str, Any] = {"fontfamily": _families(), "fontsize": 8, "parse_math": False}
    axis.set_xlabel(f"false positive rate: {negative} taken for {positive}", **text)
    axis.set_ylabel(f"true positive rate: {positive} found", **text)
    figure.suptitle(title + (f"\n{note}" if note else ""), fontsize=10, parse_math=False)
    axis.set_aspect("equal")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    _captioned(figure, caption)
    return figure


def readable(classes: Sequence[str], longest: int = 24) -> tuple[list[str], str]:
    """Return a label for each class, and a note for the reader where a label is not the name.

    Long names are cut in the middle; a name with letters that no installed font has is given by its index, because
    a row of empty boxes would look like a name.
    """
    known = _characters()
    names, unknown = [], False
    for index, name in enumerate(classes):
        if not name or not name.isprintable() or not all(ord(character) in known for character in name):
            names.append(f"class {index}")
            unknown = True
        else:
            names.append(shortened(name, longest))
    twins = Counter(names)
    names = [f"{label} ({index})" if twins[label] > 1 else label for index, label in enumerate(names)]
    return names, "class N: no installed font has the letters of its name" if unknown else ""


def shortened(text: str, longest: int) -> str:
    """Cut a long text in the middle."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def drawable(path: str) -> str:
    """Return a path with "?" for each letter that no installed font has: a pattern that the shell completes."""
    return "".join(letter if letter.isprintable() and ord(letter) in _characters() else "?" for letter in path)


@functools.cache
def _families() -> list[str]:
    """Return the fonts that are asked in turn for a letter."""
    return ["DejaVu Sans", *sorted(set(WIDE_FONTS) & {font.name for font in font_manager.fontManager.ttflist})]


@functools.cache
def _characters() -> set[int]:
    """Return the code points that the fonts cover."""
    files = [font_manager.findfont(family) for family in _families()]
    return {code for file in files for code in font_manager.get_font(file).get_charmap()}


def _captioned(figure: Figure, caption: str) -> None:
    """Write below a picture what it is of."""
    if caption:
        text: dict[str, Any] = {"fontsize": 6.5, "fontfamily": _families(), "color": "dimgray", "parse_math": False}
        figure.supxlabel(caption, **text)


def _grid(figure: Figure | SubFigure, images: Pixels, titles: Sequence[str], columns: int) -> None:
    """Draw pictures in rows of `columns`, each under its title."""
    axes = np.atleast_1d(figure.subplots(-(-len(images) // columns), columns)).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, image, title in zip(axes, images, titles, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=7, fontfamily=_families(), parse_math=False)
