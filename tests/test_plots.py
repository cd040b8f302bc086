"""Pictures from plain data: what is in them, and that they are written whole, whatever the names."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from imgcls import plots
from imgcls.errors import WriteError
from imgcls.plots import Examples, confusion, contact_sheet, curves, examples, readable, roc, save
from imgcls.report import BinaryReport


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


def test_the_best_epoch_is_marked() -> None:
    figure = curves([row(1), row(2), row(3)], best=2)
    for axis in figure.axes:
        (mark,) = (line for line in axis.get_lines() if line.get_label() == "best: epoch 2")
        assert np.asarray(mark.get_xdata()).tolist() == [2, 2]
    assert not any("best" in label for curve in drawn(curves([row(1), row(2)])).values() for label in curve)


@pytest.mark.parametrize(
    ("accuracies", "low", "high", "ticks"),
    [
        ([0.993, 0.996, 1.0], 0.973, 1.004, {"99 %", "99.5 %", "100 %"}),
        ([0.5, 0.5, 0.5], 0.48, 0.52, {"49 %", "50 %", "51 %"}),
        ([0.1, 0.5, 0.9], 0.036, 0.964, {"20 %", "80 %"}),
        ([0.0, 0.0, 0.0], -0.004, 0.02, {"0 %", "1 %"}),
    ],
)
def test_the_accuracy_fills_its_axis_and_is_in_percent(
    tmp_path: Path, accuracies: list[float], low: float, high: float, ticks: set[str]
) -> None:
    """No tick above 100 %, below 0 %, or between two epochs."""
    history = [row(epoch, train_acc=None, val_acc=share) for epoch, share in enumerate(accuracies, start=1)]
    figure = curves(history)
    save(figure, tmp_path / "curves.png")
    axis = figure.axes[1]
    assert axis.get_ylim() == pytest.approx((low, high))
    shown = [
        label.get_text() for label, y in zip(axis.get_yticklabels(), axis.get_yticks(), strict=True) if low <= y <= high
    ]
    assert ticks <= set(shown)
    assert all(0 <= float(text.removesuffix(" %")) <= 100 for text in shown)


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_epochs_are_whole_numbers(epochs: int) -> None:
    for axis in curves([row(epoch) for epoch in range(1, epochs + 1)]).axes:
        inside = [tick for tick in axis.get_xticks() if 0.5 <= tick <= epochs + 0.5]
        assert inside
        assert all(tick == round(tick) for tick in inside)


@pytest.mark.parametrize(
    ("rates", "scale"),
    [([0.1, 0.01, 1e-3], "log"), ([0.1, 0.05, 0.01], "linear"), ([0.1, 0.1], "linear"), ([0.1, 0.0], "linear")],
)
def test_a_learning_rate_over_decades_is_drawn_in_decades(rates: list[float], scale: str) -> None:
    axis = curves([row(epoch, lr=lr) for epoch, lr in enumerate(rates, start=1)]).axes[2]
    assert axis.get_yscale() == scale
    assert scale == "log" or axis.get_ylim()[0] == 0


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


def written(artist: Artist) -> list[Text]:
    """Return everything that is written in a figure but the numbers of its axes."""
    found = [text for text in artist.findobj(Text) if text.get_visible() and text.get_text()]
    return [text for text in found if text.get_text().strip("\N{MINUS SIGN}0123456789.")]


def texts(artist: Artist) -> list[str]:
    return [text.get_text() for text in written(artist)]


def outside(figure: Figure) -> list[str]:
    """Return what is written beyond the edges of a figure that was drawn."""
    edges, boxes = figure.bbox, {text.get_text(): text.get_window_extent() for text in written(figure)}
    return [
        text
        for text, box in boxes.items()
        if min(box.x0, box.y0) < -1 or box.x1 > edges.x1 + 1 or box.y1 > edges.y1 + 1
    ]


def pictures(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_a_contact_sheet_shows_each_picture_under_its_class(count: int) -> None:
    images, labels = pictures(count), [number * 5 % 3 for number in range(count)]
    figure = contact_sheet(images, labels, ["ant", "bee", "wasp"])
    shown = [axis for axis in figure.axes if axis.get_images()]
    assert [axis.get_title() for axis in shown] == [("ant", "bee", "wasp")[label] for label in labels]
    for axis, image in zip(shown, images, strict=True):
        assert np.array_equal(np.asarray(axis.get_images()[0].get_array()), image)
    assert not any(axis.axison for axis in figure.axes)
    assert texts(figure) == [axis.get_title() for axis in shown]


def test_a_contact_sheet_says_what_its_numbers_stand_for(tmp_path: Path) -> None:
    figure = contact_sheet(pictures(2), [1, 0], [UNKNOWN, "bee"])
    assert [axis.get_title() for axis in figure.axes[:2]] == ["bee", "class 0"]
    assert NOTE in texts(figure)


# Names ---------------------------------------------------------------------------------------------------------------

UNKNOWN = "\U00012000\U00012001"  # cuneiform, which none of the fonts asked for has
NOTE = "class N: no installed font has the letters of its name"
HOSTILE = ["$\\frac{$", "ant_$1", "$x^2$", "金魚", "🐜", "a\tb", "new\nline", "", "[red]", "%s", "\udcff", "W" * 200]


@pytest.mark.parametrize(
    "name",
    ["ant", "Käfer", "e\u0301cole", "Ελλάδα", "Жук", "naïve œuvre", "Łódź", "½ π ≤ √2", "$x^2$", "a/b, c", "x" * 24],
)
def test_a_name_whose_letters_are_known_is_drawn_as_it_is(name: str) -> None:
    assert readable(["other", name]) == (["other", name], "")


@pytest.mark.parametrize(
    "name", [UNKNOWN, f"ant {UNKNOWN}", "\U0010ffff", "", "a\tb", "new\nline", "\x1b[31m", "caf\udce9"], ids=ascii
)
def test_a_name_that_no_font_can_draw_is_given_by_its_index(name: str) -> None:
    assert readable(["other", "bee", name]) == (["other", "bee", "class 2"], NOTE)


def test_letters_beyond_dejavu_are_drawn_where_a_font_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chinese and emoji are given by their index here, because no font for them is counted on."""
    known = set(map(ord, "bee"))
    monkeypatch.setattr(plots, "_characters", lambda: known)
    assert readable(["金魚", "bee", "🐜"])[0] == ["class 0", "bee", "class 2"]
    known |= set(map(ord, "金魚🐜"))
    assert readable(["金魚", "bee", "🐜"]) == (["金魚", "bee", "🐜"], "")


def test_a_long_name_is_cut_in_the_middle() -> None:
    name = "Canis lupus familiaris, golden retriever"
    assert readable([name, "x" * 25]) == (["Canis lupus…n retriever", "x" * 11 + "…" + "x" * 11], "")
    assert readable([name], longest=16) == (["Canis l…triever"], "")
    assert contact_sheet(pictures(1), [0], [name]).axes[0].get_title() == "Canis lupus…n retriever"


def test_names_that_look_alike_get_their_index() -> None:
    twins = ["x" * 15 + letter + "x" * 15 for letter in "ab"]
    label = "x" * 11 + "…" + "x" * 11
    assert readable([twins[0], "bee", twins[1]]) == ([f"{label} (0)", "bee", f"{label} (2)"], "")
    assert readable(["class 1", UNKNOWN]) == (["class 1 (0)", "class 1 (1)"], NOTE)


def test_the_note_is_for_unknown_letters_alone() -> None:
    assert readable(["class of " + "x" * 40, "bee"])[1] == ""


def test_a_name_is_never_markup_never_fails_and_never_warns(tmp_path: Path) -> None:
    """Warnings are errors here."""
    classes, count = HOSTILE, len(HOSTILE)
    everything = range(count)
    section = Examples("wrong: $x^2$", pictures(count), everything, everything, [0.5] * count, classes)
    report = two(positive="$x^2$", negative="金魚")
    figures = {
        "sheet": contact_sheet(pictures(count), everything, classes),
        "examples": examples([section], classes),
        "confusion": confusion(np.eye(count, dtype=int).tolist(), classes, "100 % of $x^2$"),
        "roc": roc(report, ("金魚", "$x^2$"), "100 % of $x^2$"),
    }
    for name, figure in figures.items():
        save(figure, tmp_path / name)
        with Image.open(tmp_path / name) as image:
            image.load()
            assert (image.format, image.width > 400) == ("PNG", True)
        named = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert named
        assert not any(text.get_parse_math() for text in named)


def test_a_dollar_is_drawn_as_a_dollar(tmp_path: Path) -> None:
    """As markup, $x$ would be one narrow letter."""
    widths = []
    for name in ("$x$", "xxx"):
        figure = confusion([[1, 0], [0, 1]], [name, "b"], "t")
        save(figure, tmp_path / "confusion.png")
        widths.append(figure.axes[0].get_yticklabels()[0].get_window_extent().width)
    assert widths[0] == pytest.approx(widths[1], rel=0.25)


# The confusion matrix ------------------------------------------------------------------------------------------------


def counts_of(classes: int, largest: int = 9) -> list[list[int]]:
    """Return counts, the largest in the last corner; row 0 has none at all, and a large matrix has few."""
    table = np.random.default_rng(0).integers(0, largest + 1, (classes, classes))
    apart = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    table[(apart % 3 == 1) | (apart > 3)] = 0
    table[0], table[-1, -1] = 0, largest
    found: list[list[int]] = table.tolist()
    return found


def ticks(labels: Sequence[Text]) -> list[str]:
    return [label.get_text() for label in labels]


@pytest.mark.parametrize(
    ("classes", "largest"), [(2, 9), (2, 123456), (10, 9), (10, 9999), (12, 99), (13, 99), (120, 9)]
)
def test_a_matrix_shows_counts_and_names_where_they_fit(classes: int, largest: int) -> None:
    """Zeros are left out of a large one."""
    table, names = counts_of(classes, largest), [f"kind {number}" for number in range(classes)]
    axis = confusion(table, names, "val: 9 images").axes[0]
    shown = {(round(y), round(x)): text.get_text() for text in axis.texts for x, y in [text.get_position()]}
    cells = np.ndenumerate(np.array(table))
    assert shown == {place: str(count) for place, count in cells if count or classes <= 12}
    assert len(axis.texts) == len(shown)
    assert ticks(axis.get_xticklabels()) == ticks(axis.get_yticklabels()) == names
    assert axis.get_xticks().tolist() == axis.get_yticks().tolist() == list(range(classes))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    assert axis.figure.get_suptitle() == "val: 9 images"


@pytest.mark.parametrize(("classes", "largest"), [(120, 99), (200, 9), (201, 9), (300, 9)])
def test_a_matrix_of_many_classes_has_no_counts_and_above_200_no_names(classes: int, largest: int) -> None:
    axis = confusion(counts_of(classes, largest), [f"kind {number}" for number in range(classes)], "val").axes[0]
    assert not axis.texts
    if classes <= 200:
        assert ticks(axis.get_xticklabels()) == [f"kind {number}" for number in range(classes)]
    else:
        assert "kind" not in "".join(texts(axis))
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("index of the predicted class", "index of the true class")


def test_the_colours_are_shares_of_the_row() -> None:
    axis = confusion([[3, 1], [0, 0]], ["a", "b"], "t").axes[0]
    (picture,) = axis.get_images()
    assert np.asarray(picture.get_array()).tolist() == [[0.75, 0.25], [0, 0]]
    assert (picture.norm.vmin, picture.norm.vmax) == (0, 1)
    assert [text.get_color() for text in axis.texts] == ["white", "black", "black", "black"]


def test_of_some_classes_the_shares_are_of_all_their_images() -> None:
    axis = confusion([[3, 1], [0, 2]], ["a", "b"], "t", images=[8, 4]).axes[0]
    assert np.asarray(axis.get_images()[0].get_array()).tolist() == [[0.375, 0.125], [0, 0.5]]


def test_a_caption_lies_inside_every_picture(tmp_path: Path) -> None:
    """Of the longest that `evaluate` writes."""
    caption = f"{'m' * 40} (efficientnet_v2_l, epoch 100)\non {'$x$W' * 10}, 2026-01-02T03:04:05Z"
    section = Examples("wrong", pictures(2), [0, 1], [1, 0], [0.9, 0.8], ["a.png", "b.png"])
    for figure in (
        confusion(counts_of(2), AB, "val", caption),
        examples([section], AB, caption),
        roc(two(), AB, "val", caption),
    ):
        save(figure, tmp_path / "picture.png")
        assert caption in texts(figure)
        assert not outside(figure)


def test_unknown_letters_are_said_in_the_title() -> None:
    axis = confusion([[1, 0], [0, 1]], [UNKNOWN, "b"], "val: 2 images").axes[0]
    assert ticks(axis.get_xticklabels()) == ["class 0", "b"]
    assert axis.figure.get_suptitle() == f"val: 2 images\n{NOTE}"


@pytest.mark.parametrize("classes", [2, 10, 120, 300])
def test_a_matrix_of_any_size_is_written(tmp_path: Path, classes: int) -> None:
    """All that is written in it lies inside the picture, and the counts inside their cells."""
    figure = confusion(counts_of(classes), [f"class number {number}" for number in range(classes)], "test: 9 images")
    save(figure, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert max(image.size) < 3000
    assert not outside(figure)
    axis = figure.axes[0]
    cell = axis.get_window_extent().width / classes
    sizes = [text.get_window_extent() for text in axis.texts]
    assert all(size.width < cell and size.height < 1.2 * cell for size in sizes)


def test_the_note_lies_inside_the_picture(tmp_path: Path) -> None:
    figure = confusion([[1, 0], [0, 1]], [UNKNOWN, "b"], "val: 2 images")
    save(figure, tmp_path / "confusion.png")
    assert not outside(figure)


# Examples ------------------------------------------------------------------------------------------------------------


def test_examples_show_each_picture_under_what_it_is_and_what_was_answered(tmp_path: Path) -> None:
    images, classes = pictures(10), ["ant", "bee", "$x^2$"]
    files = [f"{number}.png" for number in range(10)]
    truth, answers = [0, 1, 2, 0, 1, 2, 0], [1, 2, 0, 2, 0, 1, 1]
    wrong = Examples("wrong: 7 of 9", images[:7], truth, answers, [0.994] * 7, files[:7])
    right = Examples("right: 3 of 20", images[7:], [0, 1, 2], [0, 1, 2], [1.0, 0.5, 0.45678], files[7:])
    figure = examples([wrong, right], classes)
    assert [part.get_suptitle() for part in figure.subfigs] == [wrong.heading, right.heading]
    for part, section, confidences in zip(
        figure.subfigs, (wrong, right), (["99.4 %"] * 7, ["100.0 %", "50.0 %", "45.7 %"]), strict=True
    ):
        axes = [axis for axis in part.axes if axis.get_images()]
        assert [axis.get_title() for axis in axes] == [
            f"{file}\ntrue: {classes[label]}\npredicted ({confidence}): {classes[answer]}"
            for file, label, answer, confidence in zip(
                section.files, section.labels, section.predicted, confidences, strict=True
            )
        ]
        for axis, image in zip(axes, section.images, strict=True):
            assert np.array_equal(np.asarray(axis.get_images()[0].get_array()), image)
    save(figure, tmp_path / "examples.png")
    assert not outside(figure)


def test_examples_have_names_of_at_most_16_letters_and_say_what_numbers_stand_for() -> None:
    section = Examples("wrong", pictures(1), [0], [1], [0.5], ["IMG_20230401_123456 copy.jpg"])
    figure = examples([section], ["n" * 8 + "o" * 9, UNKNOWN])
    assert figure.axes[0].get_title() == "IMG_2023040…56 copy.jpg\ntrue: nnnnnnn…ooooooo\npredicted (50.0 %): class 1"
    assert figure.subfigs[0].get_suptitle() == f"wrong   ({NOTE})"


def test_a_file_name_with_unknown_letters_is_a_pattern_for_it() -> None:
    section = Examples("wrong", pictures(1), [0], [1], [0.5], [f"a\n{UNKNOWN}.png"])
    assert examples([section], ["ant", "bee"]).axes[0].get_title().splitlines()[0] == "a???.png"


def test_titles_of_neighbours_do_not_touch(tmp_path: Path) -> None:
    section = Examples("wrong", pictures(6), [0, 1] * 3, [1, 0] * 3, [1.0] * 6, ["IMG_20230401_123456 copy.jpg"] * 6)
    figure = examples([section], ["a photograph of a bee", "Staphylinidae"])
    save(figure, tmp_path / "examples.png")
    boxes = [axis.title.get_window_extent() for axis in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


# The ROC curve -------------------------------------------------------------------------------------------------------


AB = ("a", "b")


def two(**asked: Any) -> BinaryReport:
    """Return a two-class evaluation of a, the positive one, and b."""
    values: dict[str, Any] = {"positive": "a", "negative": "b", "auc": 0.969, "threshold": 0.25}
    values |= dict.fromkeys(("true_positives", "false_positives", "true_negatives", "false_negatives"), 2)
    values |= {"accuracy": 0.75, "accuracy_interval": (0.5, 0.9), "precision": 0.8, "recall": 1.0, "specificity": 0.75}
    values |= {"f1": 0.7, "roc": ((0.0, 0.0, None), (0.0, 0.75, 0.6), (0.25, 1.0, 0.2), (1.0, 1.0, 0.1))}
    return BinaryReport(**values | asked)


def test_the_curve_and_the_point_of_its_threshold_are_drawn(tmp_path: Path) -> None:
    figure = roc(two(), AB, "val: 8 images")
    save(figure, tmp_path / "roc.png")
    (axis,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axis.get_lines()}
    assert {label: np.asarray(points).tolist() for label, points in lines.items()} == {
        "chance": [[0, 0], [1, 1]],
        "AUC 0.969": [[0, 0], [0, 0.75], [0.25, 1], [1, 1]],
        "threshold 0.25": [[0.25, 1]],
    }
    assert axis.get_xlabel() == "false positive rate: b taken for a"
    assert axis.get_ylabel() == "true positive rate: a found"
    assert figure.get_suptitle() == "val: 8 images"
    assert axis.get_legend() is not None
    assert not outside(figure)


@pytest.mark.parametrize("missing", ["recall", "specificity"])
def test_without_one_class_there_is_no_curve_and_no_point(missing: str) -> None:
    (axis,) = roc(two(auc=None, roc=None, **{missing: None}), AB, "val").axes
    assert [line.get_label() for line in axis.get_lines()] == ["chance"]
    assert "no curve: one class has no images" in texts(axis)


def test_a_number_means_the_same_class_in_all_pictures() -> None:
    """The second of two classes is the positive one unless told."""
    classes = ["ant", UNKNOWN]
    assert ticks(confusion([[1, 0], [0, 1]], classes, "t").axes[0].get_xticklabels()) == ["ant", "class 1"]
    assert "class 1 found" in roc(two(positive=UNKNOWN, negative="ant"), classes, "t").axes[0].get_ylabel()


def test_long_names_lie_inside_the_roc_curve(tmp_path: Path) -> None:
    figure = roc(two(positive="W" * 24, negative="M" * 24), ("M" * 24, "W" * 24), "val: 8 images")
    save(figure, tmp_path / "roc.png")
    assert not outside(figure)


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.png").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"old\.png: cannot write: no space left on device; .* needs [\d,]+ bytes"):
        save(Figure(), tmp_path / "old.png")
    assert os.listdir(tmp_path) == ["old.png"]
    assert (tmp_path / "old.png").read_text() == "old"


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"x\.png: cannot write: no such file"):
        save(Figure(), tmp_path / "none" / "x.png")


def test_no_window_is_ever_opened() -> None:
    """Figures are made without pyplot, so that no display is asked for."""
    import sys

    figure = contact_sheet(pictures(1), [0], ["a"])
    buffer = io.BytesIO()
    figure.savefig(buffer)
    assert buffer.tell() > 0
    assert "matplotlib.pyplot" not in vars(plots)
    assert not hasattr(sys.modules["imgcls.plots"], "plt")
