"""evaluate, inspect-batch, info and sample-data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

from imgcls.errors import Exit

Run = Callable[..., Result]


def test_evaluate_prints_overall_and_per_class_accuracy(run: Run, best: Path, colours: Path) -> None:
    result = run("evaluate", "--data", colours, "--ckpt", best)
    assert result.stdout.startswith("accuracy 100.0 % (95 %: 75.8-100.0 %) on 12 images (test)")
    assert "class\timages\taccuracy\t95 %\nblue\t6\t100.0 %\t61.0-100.0 %\nred\t6\t100.0 %" in result.stdout
    assert "12 images (test)" in result.stderr


def test_evaluate_on_val_gives_the_stored_accuracy(run: Run, best: Path, colours: Path, tmp_path: Path) -> None:
    run("evaluate", "--data", colours, "--ckpt", best, "--split", "val", "--json", tmp_path / "report.json")
    run("info", best, "--json", tmp_path / "card.json")
    report, card = (json.loads((tmp_path / name).read_text()) for name in ("report.json", "card.json"))
    assert report["accuracy"] == card["metrics"]["accuracy"]
    assert report["loss"] == pytest.approx(card["metrics"]["loss"], rel=1e-6)
    stable = "split images loss accuracy accuracy_interval top5 macro_f1 weighted_f1 per_class classes confusion"
    assert set(stable.split()) <= report.keys()
    assert {"class", "support", "accuracy", "precision", "recall", "f1"} <= report["per_class"][0].keys()


def test_evaluate_json_on_stdout_is_alone_there(run: Run, best: Path, colours: Path) -> None:
    assert json.loads(run("evaluate", "--data", colours, "--ckpt", best, "--json", "-").stdout)["images"] == 12


def test_evaluate_keeps_labels_right_when_a_class_folder_is_missing(
    run: Run, best: Path, colours: Path, tmp_path: Path
) -> None:
    shutil.copytree(colours / "test/red", tmp_path / "data/test/red")  # red is the second class
    result = run("evaluate", "--data", tmp_path / "data", "--ckpt", best)
    assert "accuracy 100.0 %" in result.stdout
    assert "no images of class 'blue'" in result.stderr
    assert "blue\t0\t-\t-" in result.stdout
    shutil.copytree(colours / "test/red", tmp_path / "data/test/green")
    result = run("evaluate", "--data", tmp_path / "data", "--ckpt", best)
    assert result.exit_code == Exit.DATA
    assert "unknown class 'green'" in result.stderr


def test_inspect_batch_shows_what_training_sees(run: Run, colours: Path, tmp_path: Path) -> None:
    line = ("inspect-batch", "--data", colours, "--arch", "simple-cnn", "--batch-size", 8, "--workers", 0)
    result = run(*line, "--output", tmp_path / "grid.png", "--json", tmp_path / "batch.json")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("images  [8, 3, 16, 16] uint8, levels ")
    assert "labels  [8] int64: " in result.stdout
    assert "class\tindex\ttrain\tval\ttest\nblue\t0\t12\t6\t6\nred\t1\t12\t6\t6" in result.stdout
    values = json.loads((tmp_path / "batch.json").read_text())
    assert values["class_to_idx"] == {"blue": 0, "red": 1}
    assert values["findings"] == []
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.size[0] > 400
    val = json.loads(run(*line, "--split", "val", "--json", "-").stdout)
    assert [label for label, _ in val["labels"]["first"]] == [0] * 6 + [1] * 2  # in order, not shuffled


def test_info_shows_what_a_checkpoint_holds(run: Run, best: Path) -> None:
    page = run("info", best).stdout
    for words in ("simple-cnn", "2: blue, red", "resize 16", "100.0 %", "scratch", "lr=0.01"):
        assert words in page
    assert run("info", best.parent / "last.pt").stdout.splitlines()[-1].split() == ["resumable", "yes"]


def test_sample_data_is_drawn_once(run: Run, tmp_path: Path) -> None:
    result = run("sample-data", tmp_path / "dataset")
    assert result.exit_code == 0
    assert "train: 600 images" in result.stdout
    assert len(list((tmp_path / "dataset/test/star").iterdir())) == 30
    again = run("sample-data", tmp_path / "dataset")
    assert again.exit_code == Exit.USAGE
    assert "is not empty" in again.stderr
