"""Image by image: predictions as CSV, pictures of examples and report.json agree with the report and with `predict`."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import draw_tree
from matplotlib.figure import Figure
from PIL import Image
from small_runs import COLOURS, draw, tiny
from small_runs import run as train
from typer.testing import Result

from imgcls import checkpoint, plots
from imgcls.checkpoint import Checkpoint
from imgcls.data import draws
from imgcls.data.holdout import NO_HOLDOUT
from imgcls.engine.assess.evaluate import evaluate
from imgcls.errors import Interrupted, WriteError
from imgcls.models.classifier import build_network
from imgcls.pixels.transform import transform
from imgcls.report import EvalReport
from imgcls.schema import ModelCard, Preprocess, Pretrained

pytest_plugins = ("small_runs",)

Command = Callable[..., Result]
PREPROCESS = Preprocess(size=16, resize=18)
ODD = ('comma, and "quote"', "new\nline", os.fsdecode(b"caf\xe9"))


def untrained(path: Path, classes: tuple[str, ...], seed: int = 0) -> Path:
    """Write a checkpoint of random weights, whose answers are all over the place."""
    card = ModelCard(
        arch="simple-cnn",
        arch_options={},
        classes=classes,
        preprocess=PREPROCESS,
        pretrained=Pretrained(asked="no", used=None, reason=""),
        imgcls_version="0.1.0",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network("simple-cnn", len(classes), PREPROCESS.size)
    checkpoint.save(path, Checkpoint(card, network.state_dict(), NO_HOLDOUT))
    return path


def evaluated(data: Path, ckpt: Path, **asked: Any) -> EvalReport:
    options: dict[str, Any] = {"device": "cpu", "workers": 0, "batch_size": 8}
    return evaluate(str(data), str(ckpt), **options | asked)


def table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as its user would."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty pictures of nothing, 32 x 20 px, in three classes."""
    layout = {f"test/{name}": 20 - 3 * number for number, name in enumerate("abc")}
    return draw_tree(tmp_path_factory.mktemp("noise"), layout, size=(32, 20))


@pytest.fixture(scope="module")
def guess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is often wrong about them."""
    return untrained(tmp_path_factory.mktemp("guess") / "guess.pt", ("a", "b", "c"))


# Predictions ---------------------------------------------------------------------------------------------------------


def test_predictions_are_one_row_per_image_the_worst_first(noise: Path, guess: Path, tmp_path: Path) -> None:
    report = evaluated(noise, guess, predictions=str(tmp_path / "rows.csv"))
    rows = table(tmp_path / "rows.csv")
    assert list(rows[0]) == ["path", "class", "predicted", "correct", "confidence", "class_confidence", "loss"]
    assert sorted(row["path"] for row in rows) == sorted(str(path) for path in noise.glob("test/*/*.png"))
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]
    assert np.mean(losses) == pytest.approx(report.loss, abs=1e-6)
    for row, loss in zip(rows, losses, strict=True):
        assert Path(row["path"]).is_file()
        assert row["class"] == Path(row["path"]).parent.name
        assert int(row["correct"]) == (row["class"] == row["predicted"])
        assert float(row["class_confidence"]) == pytest.approx(np.exp(-loss), abs=2e-6)
        assert float(row["class_confidence"]) <= float(row["confidence"])
        assert row["correct"] == "0" or row["class_confidence"] == row["confidence"]
    assert np.mean([int(row["correct"]) for row in rows]) == report.accuracy
    assert 0 < report.accuracy < 1, "always or never right: this test would be weak"


def test_predictions_agree_with_predict_image_by_image(run: Command, noise: Path, guess: Path, tmp_path: Path) -> None:
    evaluated(noise, guess, predictions=str(tmp_path / "rows.csv"))
    predicted = run("predict", noise / "test", "--ckpt", guess, "--format", "jsonl", "--top-k", 3).stdout
    answers = {row["path"]: row for row in map(json.loads, predicted.splitlines())}
    rows = table(tmp_path / "rows.csv")
    assert len(rows) == len(answers) == 51
    for row in rows:
        answer = answers[row["path"]]
        assert row["predicted"] == answer["class"]
        assert float(row["confidence"]) == pytest.approx(answer["confidence"], abs=2e-6)
        own = next(score["confidence"] for score in answer["top"] if score["class"] == row["class"])
        assert float(row["class_confidence"]) == pytest.approx(own, abs=2e-6)
    assert len({row["predicted"] for row in rows}) > 1, "one answer for all: this test would be weak"


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 64}, {"workers": 2}, {"limit": 10}], ids=str)
def test_each_row_keeps_its_own_path(noise: Path, guess: Path, tmp_path: Path, options: dict[str, int]) -> None:
    evaluated(noise, guess, predictions=str(tmp_path / "expected.csv"))
    report = evaluated(noise, guess, predictions=str(tmp_path / "rows.csv"), **options)
    expected = {row["path"]: row for row in table(tmp_path / "expected.csv")}
    rows = table(tmp_path / "rows.csv")
    assert len(rows) == len({row["path"] for row in rows}) == report.images == options.get("limit", 51)
    for row in rows:
        assert row["predicted"] == expected[row["path"]]["predicted"]
        assert float(row["loss"]) == pytest.approx(float(expected[row["path"]]["loss"]), abs=1e-5)


def test_odd_names_come_back_unchanged_from_the_csv_module(tmp_path: Path) -> None:
    names = ("plain.png", "a,b.png", 'quo"te.png', '"', "new\nline.png", " blank .png", os.fsdecode(b"\xff.png"))
    files = [name if name.endswith(".png") else f"{name}.png" for name in names]
    for number, name in enumerate(ODD):
        draw_tree(tmp_path / "data", {f"test/{name}": 1}, seed=number)
        for file in files:
            shutil.copy(tmp_path / "data/test" / name / "000.png", tmp_path / "data/test" / name / file)
    ckpt = untrained(tmp_path / "odd.pt", ODD)
    evaluated(tmp_path / "data", ckpt, predictions=str(tmp_path / "rows.csv"), out=str(tmp_path / "report"))
    rows = table(tmp_path / "rows.csv")
    expected = {str(tmp_path / "data/test" / name / file): name for name in ODD for file in ("000.png", *files)}
    assert {row["path"]: row["class"] for row in rows} == expected
    assert len(rows) == len(expected)
    assert {row["predicted"] for row in rows} <= set(ODD)
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert tuple(report["classes"]) == ODD


def test_a_carriage_return_in_a_name_comes_back_too(tmp_path: Path) -> None:
    draw_tree(tmp_path / "data", {"test/a": 1, "test/b": 1})
    (tmp_path / "data/test/a/000.png").rename(tmp_path / "data/test/a/car\rriage.png")
    ckpt = untrained(tmp_path / "ab.pt", ("a", "b"))
    evaluated(tmp_path / "data", ckpt, predictions=str(tmp_path / "rows.csv"))
    paths = {row["path"] for row in table(tmp_path / "rows.csv")}
    assert paths == {str(tmp_path / "data/test/a/car\rriage.png"), str(tmp_path / "data/test/b/000.png")}


def test_an_older_table_survives_a_full_disk(
    noise: Path, guess: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"rows\.csv: cannot write: no space left on device; free space"):
        evaluated(noise, guess, predictions=str(tmp_path / "rows.csv"))
    assert (tmp_path / "rows.csv").read_text() == "old"
    assert os.listdir(tmp_path) == ["rows.csv"]


# An exported file ----------------------------------------------------------------------------------------------------


def test_the_exported_onnx_file_is_as_good_as_its_checkpoint(tmp_path: Path) -> None:
    """On the images that were held out in training too, which both find again in the flat folder."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from imgcls.exporters.export import export

    flat = draw(tmp_path / "flat", {"blue": 40, "red": 60}, noise=200)
    done = train(tiny(flat, out=str(tmp_path / "run"), lr=3e-3))
    best = done.folder / "best.pt"
    export(str(best), output=str(tmp_path / "best.onnx"))
    stored = checkpoint.load(best)
    for split, images in (("val", 20), ("train", 80)):
        ours, theirs = (
            evaluated(flat, ckpt, split=split, predictions=str(tmp_path / f"{ckpt.suffix[1:]}.csv"))
            for ckpt in (best, tmp_path / "best.onnx")
        )
        assert (theirs.split, theirs.images) == (ours.split, ours.images) == (split, images)
        assert (theirs.accuracy, theirs.confusion) == (ours.accuracy, ours.confusion)
        assert theirs.seen_in_training == ours.seen_in_training == {"val": "validated on", "train": "trained on"}[split]
        assert theirs.loss == pytest.approx(ours.loss, abs=1e-4)
        assert ours.binary is not None
        assert theirs.binary is not None
        assert theirs.binary.auc == pytest.approx(ours.binary.auc, abs=1e-4)
        assert 0.5 < ours.accuracy < 1, "always right or guessing: this test would be weak"
        rows, other = ({row["path"]: row for row in table(tmp_path / name)} for name in ("pt.csv", "onnx.csv"))
        assert rows.keys() == other.keys()
        assert all(row["predicted"] == other[path]["predicted"] for path, row in rows.items())
        if split == "val":
            assert ours.accuracy == stored.card.metrics["accuracy"]
            found = sorted(draws.name_hash(os.path.relpath(path, flat)) for path in rows)
            np.testing.assert_array_equal(found, stored.holdout)


# The folder ----------------------------------------------------------------------------------------------------------


def folder_of(report: EvalReport, folder: Path) -> set[str]:
    """Check what every folder of a report holds, and return the names in it."""
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    names = set(os.listdir(folder))
    (row,) = table(folder / "metrics.csv")
    values = report.to_dict()
    assert {name: float(value) if value else None for name, value in row.items() if name in FIGURES} == {
        name: values[name] for name in FIGURES
    }
    assert report.origin is not None
    assert list(row) == ["checkpoint", "where", "split", "images", *FIGURES]
    assert [row["checkpoint"], row["where"]] == [report.origin.checkpoint, report.origin.where]
    assert [row["split"], row["images"]] == [report.split, str(report.images)]
    for name in names - {"report.json", "metrics.csv"}:
        with Image.open(folder / name) as image:
            image.load()
            assert image.format == "PNG"
    return names


PICTURES = {"report.json", "metrics.csv", "confusion.png", "examples.png"}
FIGURES = ["accuracy", "loss", "top5"]
FIGURES += [f"{average}_{rate}" for average in ("macro", "weighted") for rate in ("precision", "recall", "f1")]


@pytest.mark.parametrize("case", ["all right", "all wrong", "one image"])
def test_the_folder_of_two_classes_has_a_roc_curve(case: str, best: Path, colours: Path, tmp_path: Path) -> None:
    data, options = colours, {"limit": 1} if case == "one image" else {}
    if case == "all wrong":
        data = tmp_path / "swapped"
        shutil.copytree(colours / "test/red", data / "test/blue")
        shutil.copytree(colours / "test/blue", data / "test/red")
    report = evaluated(data, best, out=str(tmp_path / "new/report"), **options)
    assert report.accuracy == (0 if case == "all wrong" else 1)
    assert report.images == (1 if case == "one image" else 12)
    assert folder_of(report, tmp_path / "new/report") == PICTURES | {"roc.png"}


def test_the_folder_of_three_classes_has_none(noise: Path, guess: Path, tmp_path: Path) -> None:
    report = evaluated(noise, guess, out=str(tmp_path), limit=12)
    assert report.binary is None
    assert folder_of(report, tmp_path) == PICTURES


def test_of_too_many_classes_the_most_confused_are_drawn(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classes of the most confused pairs, by name, with the shares of all their images."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: path.touch())
    monkeypatch.setattr(plots, "confusion", lambda *asked: drawn.append(asked))
    names = ("a", "b", "c", *(f"other {number:04d}" for number in range(1200)))
    report = evaluated(noise, untrained(tmp_path / "many.pt", names), out=str(tmp_path / "report"))
    assert report.confusion is None
    ((table, shown, title, caption, images),) = drawn
    assert title.splitlines()[1] == f"the {len(shown)} most confused of 1203 classes"
    assert shown[:3] == ["a", "b", "c"]
    assert shown == sorted(shown)
    assert len(shown) <= 41
    assert images == [20, 17, 14] + [0] * (len(shown) - 3)
    pairs = {(pair.class_name, pair.predicted): pair.images for pair in report.confusion_pairs}
    assert table == [[pairs.get((truth, answer), 0) for answer in shown] for truth in shown]
    assert 0 < np.sum(table) <= 51
    assert {pair.predicted for pair in report.most_confused} <= set(shown)
    assert caption.splitlines()[0].endswith("many.pt (simple-cnn, epoch 0)")


def test_a_folder_can_be_written_again(
    best: Path, colours: Path, noise: Path, guess: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ROC curve that was there before is no part of three classes' report."""
    monkeypatch.setattr(plots, "save", lambda figure, path: path.touch())
    evaluated(colours, best, out=str(tmp_path))
    assert set(os.listdir(tmp_path)) == PICTURES | {"roc.png"}
    report = evaluated(noise, guess, out=str(tmp_path), limit=5)
    assert json.loads((tmp_path / "report.json").read_text())["images"] == report.images == 5
    assert set(os.listdir(tmp_path)) == PICTURES


def test_an_interruption_leaves_the_older_report_whole(
    best: Path, colours: Path, noise: Path, guess: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "save", lambda figure, path: path.touch())
    evaluated(colours, best, out=str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def stopped(*arguments: object) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(plots, "examples", stopped)
    with pytest.raises(Interrupted):
        evaluated(noise, guess, out=str(tmp_path), limit=5)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_roc_png_of_the_users_own_stays(noise: Path, guess: Path, tmp_path: Path) -> None:
    (tmp_path / "roc.png").write_text("precious")
    evaluated(noise, guess, out=str(tmp_path), limit=5)
    assert (tmp_path / "roc.png").read_text() == "precious"


# Examples ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> list[plots.Examples]:
    """What examples.png is drawn from; nothing is drawn."""
    found: list[plots.Examples] = []
    figure = Figure()

    def look(sections: list[plots.Examples], classes: tuple[str, ...], caption: str) -> Figure:
        found.extend(sections)
        return figure

    monkeypatch.setattr(plots, "examples", look)
    monkeypatch.setattr(plots, "save", lambda figure, path: path.touch())
    return found


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return transform(np.asarray(image.convert("RGB")), PREPROCESS).tobytes()


def test_the_examples_are_the_pixels_that_the_network_saw(
    noise: Path, guess: Path, tmp_path: Path, sections: list[plots.Examples]
) -> None:
    """The most confident mistakes in their order, and some right answers, each with its own classes and file."""
    report = evaluated(noise, guess, out=str(tmp_path / "report"), predictions=str(tmp_path / "rows.csv"))
    rows = table(tmp_path / "rows.csv")
    rows.sort(key=lambda row: -float(row["confidence"]))
    wrong, right = ([row for row in rows if row["correct"] == digit] for digit in "01")
    worst, drawn = sections
    assert len(wrong) > 18, "all mistakes are shown: this test would be weak"
    assert worst.heading == f"wrong: 18 of {len(wrong)}, most confident first"
    assert drawn.heading == f"right: {min(18, len(right))} of {len(right)}, chosen at random, most confident first"
    for section in sections:
        assert list(section.confidence) == sorted(section.confidence, reverse=True), "sorted by the figure shown"
    losses = [float(row["loss"]) for row in wrong]
    assert losses != sorted(losses, reverse=True), "by loss the order is the same: this test would be weak"
    assert worst.images.shape == (18, 16, 16, 3)
    assert [image.tobytes() for image in worst.images] == [pixels(row["path"]) for row in wrong[:18]]
    by_pixels = {pixels(row["path"]): row for row in rows}
    assert len(by_pixels) == 51
    for section in sections:
        values = zip(
            *(section.images, section.labels, section.predicted, section.confidence, section.files), strict=True
        )
        for image, label, answer, confidence, file in values:
            row = by_pixels[image.tobytes()]
            assert file == Path(row["path"]).name
            assert (report.classes[label], report.classes[answer]) == (row["class"], row["predicted"])
            assert confidence == pytest.approx(float(row["confidence"]), abs=1e-6)
    assert {by_pixels[image.tobytes()]["correct"] for image in drawn.images} == {"1"}
    assert len({image.tobytes() for image in drawn.images}) == min(18, len(right))


def test_the_lot_falls_the_same_way_every_time(
    noise: Path, guess: Path, tmp_path: Path, sections: list[plots.Examples]
) -> None:
    evaluated(noise, guess, out=str(tmp_path))
    evaluated(noise, guess, out=str(tmp_path), batch_size=5)
    for first, second in zip(sections[:2], sections[2:], strict=True):
        np.testing.assert_array_equal(first.images, second.images)


def test_without_mistakes_there_are_right_answers_alone(
    best: Path, colours: Path, tmp_path: Path, sections: list[plots.Examples]
) -> None:
    evaluated(colours, best, out=str(tmp_path))
    assert [section.heading for section in sections] == ["right: 12 of 12, chosen at random, most confident first"]
    assert [sorted(section.labels) for section in sections] == [[0] * 6 + [1] * 6]


def test_without_right_answers_there_are_mistakes_alone(
    best: Path, colours: Path, tmp_path: Path, sections: list[plots.Examples]
) -> None:
    for name in COLOURS.keys() & {"blue", "red"}:
        shutil.copytree(colours / "test" / name, tmp_path / "data" / ({"blue", "red"} - {name}).pop())
    evaluated(tmp_path / "data", best, out=str(tmp_path / "report"))
    (section,) = sections
    assert section.heading == "wrong: 12 of 12, most confident first"
    assert [label + answer for label, answer in zip(section.labels, section.predicted, strict=True)] == [1] * 12
