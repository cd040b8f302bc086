"""Pictures from plain data: what is in them, and that they are written whole, whatever the names."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from imgcls import plots
from imgcls.errors import WriteError
from imgcls.plots import contact_sheet, curves, save


def row(epoch: int, **values: Any) -> dict[str, Any]:
    planted = {"train_loss": 1 / epoch, "val_loss": 1.2 / epoch, "train_acc": 0.5, "val_acc": 0.4, "lr": 0.1 / epoch}
    return {"epoch": epoch} | planted | values


def drawn(figure: Figure) -> dict[str, dict[str, list[float]]]:
    """Return title -> label -> values of every curve."""
    return {
        axis.get_title(): {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axis.get_lines()}
        for axis in figure.axes
    }


def test_curves_show_the_history() -> None:
    found = drawn(curves([row(1), row(2), row(3)]))
    assert set(found) == {"loss", "accuracy", "learning rate"}
    assert found["loss"] == {"train": [1, 0.5, 1 / 3], "val": [1.2, 0.6, 1.2 / 3]}
    assert found["accuracy"] == {"train": [0.5] * 3, "val": [0.4] * 3}
    assert list(found["learning rate"].values()) == [[0.1, 0.05, 0.1 / 3]]


def test_what_is_not_known_is_not_drawn() -> None:
    """Mixup has no training accuracy, a run without validation images no validation at all."""
    assert set(drawn(curves([row(1, train_acc=None)]))["accuracy"]) == {"val"}
    found = drawn(curves([row(1, val_loss=None, val_acc=None), row(2, val_loss=None, val_acc=None)]))
    assert set(found["loss"]) == set(found["accuracy"]) == {"train"}
    (first, second) = drawn(curves([row(1, val_acc=None), row(2)]))["accuracy"]["val"]
    assert np.isnan(first)
    assert second == 0.4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("history", [[row(1)], [row(epoch) for epoch in range(1, 101)]], ids=["one", "hundred"])
def test_curves_of_any_length_are_written(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    save(curves(history), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert image.width > 600
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 10


def test_nothing_known_at_all_is_no_reason_to_fail(tmp_path: Path) -> None:
    """Mixup without validation images: the accuracy panel is empty."""
    save(curves([row(1, train_acc=None, val_acc=None, val_loss=None)]), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def pictures(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_a_contact_sheet_shows_each_picture_under_its_title(count: int) -> None:
    images, titles = pictures(count), [f"class {number}" for number in range(count)]
    figure = contact_sheet(images, titles)
    shown = [axis for axis in figure.axes if axis.get_images()]
    assert [axis.get_title() for axis in shown] == titles
    for axis, image in zip(shown, images, strict=True):
        assert np.array_equal(np.asarray(axis.get_images()[0].get_array()), image)
    assert not any(axis.axison for axis in figure.axes)


def test_long_titles_are_cut() -> None:
    (axis,) = contact_sheet(pictures(1), ["x" * 40]).axes
    assert axis.get_title() == "x" * 23 + "…"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("title", ["$\\frac{$", "ant_$1", "金魚", "🐜", "a\tb", "", "[red]"])
def test_a_title_is_never_markup_and_never_fails(tmp_path: Path, title: str) -> None:
    save(contact_sheet(pictures(1), [title]), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.png").write_text("old")

    def full(self: Figure, path: Any, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(WriteError, match="no space left on device"):
        save(Figure(), tmp_path / "old.png")
    assert os.listdir(tmp_path) == ["old.png"]
    assert (tmp_path / "old.png").read_text() == "old"


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"x\.png: cannot write: no such file"):
        save(Figure(), tmp_path / "none" / "x.png")


def test_no_window_is_ever_opened() -> None:
    """Figures are made without pyplot, so that no display is asked for."""
    import sys

    figure = contact_sheet(pictures(1), ["a"])
    buffer = io.BytesIO()
    figure.savefig(buffer)
    assert buffer.tell() > 0
    assert "matplotlib.pyplot" not in vars(plots)
    assert not hasattr(sys.modules["imgcls.plots"], "plt")
