"""Pictures from plain data: numbers and uint8 arrays in, matplotlib Figure out; knows no models."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.figure import Figure

from imgcls.files import replacing

# Fonts that cover what DejaVu does not; those that are installed are asked in turn.
WIDE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "Arial Unicode MS")


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        WriteError: the folder or disk refuses it.
    """
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(temporary, format="png")


def curves(history: Sequence[dict[str, Any]]) -> Figure:
    """Draw loss, accuracy and learning rate over the epochs of metrics.jsonl."""
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
        if axis.get_lines():
            axis.legend()
    rate.plot(epochs, [row["lr"] for row in history], color="tab:gray")
    rate.set_title("learning rate")
    accuracy.set_ylim(0, 1.02)
    for axis in (loss, accuracy, rate):
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    return figure


def contact_sheet(images: npt.NDArray[np.uint8], titles: Sequence[str], columns: int = 8) -> Figure:
    """Draw pictures in a grid, each under its title.

    Args:
        images: uint8 [n, height, width, 3].
        titles: one for each, cut to 24 characters.
        columns: pictures per row at most.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.8 * rows), layout="constrained", dpi=110)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    fonts = ["DejaVu Sans", *sorted(set(WIDE_FONTS) & {font.name for font in font_manager.fontManager.ttflist})]
    for axis in axes:
        axis.axis("off")
    for axis, image, title in zip(axes, images, titles, strict=False):
        axis.imshow(image, interpolation="nearest")
        short = title if len(title) <= 24 else title[:23] + "…"
        axis.set_title(short, fontsize=8, fontfamily=fonts, parse_math=False)
    return figure
