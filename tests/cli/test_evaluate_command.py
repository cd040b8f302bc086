"""`imgcls evaluate`: figures on stdout, files where they were asked for, and one line for whatever was typed wrong."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from carrying import shows
from counting import summarise
from drawing import draw_tree
from PIL import Image
from typer.testing import Result

from imgcls.cli.console import Console
from imgcls.cli.evaluate import show
from imgcls.engine.assess import evaluate as module
from imgcls.errors import Exit

Run = Callable[..., Result]
Table = list[list[str]]


@pytest.fixture(scope="module")
def three(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint for three classes, and pictures of nothing about which it is mostly wrong."""
    root = tmp_path_factory.mktemp("three")
    data = draw_tree(root / "data", {f"{split}/{name}": 8 for split in ("train", "val") for name in "abc"}, (8, 8))
    options = ("--arch", "simple-cnn", "--epochs", 1, "--workers", 0, "--out", root / "run")
    result = run("train", "--data", data, *options)
    assert result.exit_code == 0, result.output
    return data, root / "run/best.pt"


def tables(stdout: str) -> list[Table]:
    """Return the tables of piped output, each of them a list of rows; the first "table" is the lines before them."""
    return [[line.split("\t") for line in part.splitlines()] for part in stdout.split("\n\n")]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


# What is printed -----------------------------------------------------------------------------------------------------


@shows("evaluate", "data", "ckpt")
def test_two_classes_on_one_page(run: Run, best: Path, colours: Path) -> None:
    result = run("evaluate", "--data", colours, "--ckpt", best)
    assert result.exit_code == Exit.DONE
    head, per_class, confusion, overall = tables(result.stdout)
    ((origin,),) = head
    assert re.fullmatch(
        rf"{best} \(simple-cnn, epoch \d\) on {colours}/test, \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ, imgcls \S+, torch \S+",
        origin,
    )
    assert overall[:-1] == [
        [
            "red against blue: AUC 1.000; at threshold 0.5: accuracy 100.0 %, precision 1.000, recall 1.000, "
            "specificity 1.000, F1 1.000"
        ]
    ]
    last = overall[-1][0]
    assert re.fullmatch(r"accuracy 100\.0 % \(95 %: 75\.8-100\.0 %\) on 12 images \(test\), loss 0\.\d{4}", last)
    ones = ["1.000", "1.000", "1.000"]
    assert per_class == [
        ["class", "images", "accuracy", "95 %", "precision", "recall", "F1"],
        ["blue", "6", "100.0 %", "61.0-100.0 %", *ones],
        ["red", "6", "100.0 %", "61.0-100.0 %", *ones],
        ["macro avg", "12", "", "", *ones],
        ["weighted avg", "12", "", "", *ones],
    ]
    assert confusion == [["true \\ predicted", "blue", "red"], ["blue", "6", "0"], ["red", "0", "6"]]
    assert result.stderr == f"evaluating {colours}/test: 12 images (test)\n"


def test_the_tables_hold_the_figures_of_the_json_file(run: Run, three: tuple[Path, Path], tmp_path: Path) -> None:
    data, ckpt = three
    result = run("evaluate", "--data", data, "--ckpt", ckpt, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert 0 < report["accuracy"] < 1
    assert "\x1b" not in result.output
    head, per_class, confusion, most_confused, overall = tables(result.stdout)
    low, high = (100 * bound for bound in report["accuracy_interval"])
    assert report["seen_in_training"] == "validated on"
    assert overall == [
        [
            f"accuracy {percent(report['accuracy'])} (95 %: {low:.1f}-{high:.1f} %) on 24 images "
            f"(val, which the model was validated on), loss {report['loss']:.4f}"
        ]
    ]
    assert f"on {data}/val, {report['origin']['date']}, imgcls " in head[0][0]
    for cells, row in zip(per_class[1:4], report["per_class"], strict=True):
        low, high = (100 * bound for bound in row["accuracy_interval"])
        assert cells[:4] == [row["class"], "8", percent(row["accuracy"]), f"{low:.1f}-{high:.1f} %"]
        assert cells[4:] == [f"{row[rate]:.3f}" for rate in ("precision", "recall", "f1")]
    for cells, name in zip(per_class[4:], ("macro", "weighted"), strict=True):
        rates = [f"{report[f'{name}_{rate}']:.3f}" for rate in ("precision", "recall", "f1")]
        assert cells == [f"{name} avg", "24", "", "", *rates]
    counts = [[name, *map(str, row)] for name, row in zip("abc", report["confusion"], strict=True)]
    assert confusion == [["true \\ predicted", "a", "b", "c"], *counts]
    assert most_confused[0] == ["class", "taken for", "images", "share of class"]
    assert most_confused[1:] == [
        [pair["class"], pair["predicted"], str(pair["images"]), percent(pair["share"])]
        for pair in report["most_confused"]
    ]
    assert len(most_confused) > 1


def test_json_on_stdout_is_alone_there_and_the_tables_are_on_stderr(
    run: Run, three: tuple[Path, Path], best: Path, colours: Path
) -> None:
    for data, ckpt in (three, (colours, best)):
        result = run("evaluate", "--data", data, "--ckpt", ckpt, "--json", "-")
        assert result.exit_code == Exit.DONE
        report = json.loads(result.stdout)
        printed = run("evaluate", "--data", data, "--ckpt", ckpt)
        dates = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
        assert dates.sub("", result.stderr) == dates.sub("", printed.stderr + printed.stdout)
        assert f"accuracy {percent(report['accuracy'])}" in result.stderr


def test_the_stable_names_of_the_json_file(run: Run, best: Path, colours: Path, three: tuple[Path, Path]) -> None:
    report = json.loads(run("evaluate", "--data", colours, "--ckpt", best, "--json", "-").stdout)
    assert " ".join(report) == (
        "split images loss accuracy accuracy_interval top5 macro_precision macro_recall macro_f1 weighted_precision "
        "weighted_recall weighted_f1 per_class classes confusion confusion_pairs most_confused binary "
        "seen_in_training origin"
    )
    assert " ".join(report["per_class"][0]) == "class support accuracy accuracy_interval precision recall f1"
    assert " ".join(report["binary"]) == (
        "positive negative auc threshold true_positives false_positives true_negatives false_negatives accuracy "
        "accuracy_interval precision recall specificity f1 roc"
    )
    assert report["binary"]["roc"][0] == [0, 0, None]
    data, ckpt = three
    report = json.loads(run("evaluate", "--data", data, "--ckpt", ckpt, "--json", "-").stdout)
    assert report["binary"] is None
    assert " ".join(report["most_confused"][0]) == "class predicted images share"
    assert " ".join(report["confusion_pairs"][0]) == "class predicted images"
    assert " ".join(report["origin"]) == (
        "checkpoint file sha256 arch epoch reached data where fingerprint date versions"
    )


@shows("evaluate", "split")
def test_evaluate_on_val_gives_the_stored_accuracy(run: Run, best: Path, colours: Path, tmp_path: Path) -> None:
    run("evaluate", "--data", colours, "--ckpt", best, "--split", "val", "--json", tmp_path / "report.json")
    run("info", best, "--json", tmp_path / "card.json")
    report, card = (json.loads((tmp_path / name).read_text()) for name in ("report.json", "card.json"))
    assert report["accuracy"] == card["metrics"]["accuracy"]
    assert report["loss"] == pytest.approx(card["metrics"]["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--positive", "blue"), "blue against red: AUC 1.000; at threshold 0.5: accuracy 100.0 %, precision 1.000, "),
        (("--threshold", "1"), "red against blue: AUC 1.000; at threshold 1: accuracy 50.0 %, precision -, "),
        (("--threshold", "0"), "red against blue: AUC 1.000; at threshold 0: accuracy 50.0 %, precision 0.500, "),
    ],
    ids=str,
)
@shows("evaluate", "positive", "threshold")
def test_the_positive_class_and_the_threshold(
    run: Run, best: Path, colours: Path, options: tuple[str, str], line: str
) -> None:
    stdout = run("evaluate", "--data", colours, "--ckpt", best, *options).stdout
    assert stdout.splitlines()[-2].startswith(line)
    assert stdout.splitlines()[-1].startswith("accuracy 100.0 % (")


def test_a_missing_class_has_no_figures_and_an_unknown_one_is_named(
    run: Run, best: Path, colours: Path, tmp_path: Path
) -> None:
    shutil.copytree(colours / "test/red", tmp_path / "data/test/red")  # red is the second class
    result = run("evaluate", "--data", tmp_path / "data", "--ckpt", best)
    assert result.exit_code == Exit.DONE
    assert "accuracy 100.0 % " in result.stdout
    assert "red against blue: AUC -; at threshold 0.5: accuracy 100.0 %" in result.stdout
    assert "specificity -" in result.stdout
    assert "blue\t0\t-\t-\t-\t-\t-\n" in result.stdout
    assert "no images of class 'blue'" in result.stderr
    shutil.copytree(colours / "test/red", tmp_path / "data/test/green")
    result = run("evaluate", "--data", tmp_path / "data", "--ckpt", best)
    assert result.exit_code == Exit.DATA
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {tmp_path}/data/test: unknown class 'green'")
    assert result.stderr.count("\n") == 1


def test_the_matrix_of_many_classes_is_left_to_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    for classes in (12, 13):
        names = [f"c{number}" for number in range(classes)]
        show(summarise(np.eye(classes, dtype=np.int64), 1.0, classes, names, "val"), Console())
        printed = capsys.readouterr()
        assert ("true \\ predicted" in printed.out) == (classes == 12)
        assert ("--out and --json" in printed.err) == (classes == 13)
        assert "top-5 100.0 %" in printed.out
        assert "taken for" not in printed.out, "nothing is confused"


def test_of_very_many_classes_the_least_accurate_have_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """Of equal ones those with more images first; a class without images is none of them."""
    for classes in (200, 201):
        names = [f"c{number}" for number in range(classes)]
        table = np.diag(np.arange(classes, dtype=np.int64))
        table[50, 51], table[60, 61], table[70, 0] = 50, 30, 140
        show(summarise(table, 1.0, classes, names, "val"), Console())
        printed = capsys.readouterr()
        rows = [line.split("\t") for line in printed.out.strip().split("\n\n")[0].splitlines()]
        named = [row[0] for row in rows[1:-2]]
        if classes == 200:
            assert named == names
            assert "least accurate" not in printed.err
        else:
            assert named[:3] == ["c70", "c50", "c60"]
            assert named[3:] == [f"c{number}" for number in range(200, 183, -1)]
            assert "the 20 least accurate of 201 classes; --out and --json write all\n" in printed.err


@shows("evaluate", "limit")
def test_one_image_is_one_image(run: Run, best: Path, colours: Path) -> None:
    result = run("evaluate", "--data", colours, "--ckpt", best, "--limit", 1)
    assert " on 1 image (test), " in result.stdout
    assert result.stderr.endswith("/test: 1 image (test)\n")


# What is written -----------------------------------------------------------------------------------------------------


@shows("evaluate", "out", "predictions")
def test_the_folder_and_the_table_are_written_and_said(
    run: Run, three: tuple[Path, Path], best: Path, colours: Path, tmp_path: Path
) -> None:
    data, ckpt = three
    for name, line in (("three", (data, ckpt)), ("two", (colours, best))):
        out, rows = tmp_path / "reports" / name, tmp_path / f"{name}.csv"
        result = run(
            *("evaluate", "--data", line[0], "--ckpt", line[1]),
            *("--out", out, "--predictions", rows, "--json", "-"),
        )
        assert result.exit_code == Exit.DONE, result.output
        assert result.stderr.endswith(f"report and pictures: {out}\npredictions: {rows}\n")
        assert (out / "report.json").read_text() == result.stdout
        pictures = {"confusion.png", "examples.png"} | ({"roc.png"} if name == "two" else set())
        assert set(os.listdir(out)) == {"report.json", "metrics.csv"} | pictures
        assert all((out / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
        table = list(csv.DictReader(rows.read_text().splitlines()))
        assert np.mean([int(row["correct"]) for row in table]) == json.loads(result.stdout)["accuracy"]


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """See to it that nothing is evaluated."""

    def validate(*arguments: object, **options: object) -> None:
        pytest.fail("the evaluation has begun")

    monkeypatch.setattr(module, "validate", validate)


def refused(result: Result, code: Exit) -> str:
    """Check that a command said one line on stderr and nothing else; returns the line."""
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").removesuffix("\n")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--positive", "rad"),
            "--positive rad: {best} has no such class (did you mean 'red'?); choose from: blue, red",
        ),
        (("--positive", "ants"), "--positive ants: {best} has no such class; choose from: blue, red"),
        (("--positive", ""), "--positive : {best} has no such class; choose from: blue, red"),
        (("--split", "tset"), "--split tset: not known (did you mean 'test'?); choose from: train, val, test"),
        (
            ("--device", "gpu"),
            "--device gpu: not known (did you mean 'cuda'?); choose from: auto, cpu, cuda, cuda:N, mps",
        ),
    ],
    ids=str,
)
def test_a_wrong_word_is_named(run: Run, best: Path, colours: Path, options: tuple[str, str], sentence: str) -> None:
    line = refused(run("evaluate", "--data", colours, "--ckpt", best, *options), Exit.USAGE)
    assert line == sentence.format(best=best)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("threshold", ["1.5", "-0.1", "nan", "half"])
def test_a_threshold_is_a_probability(run: Run, best: Path, colours: Path, threshold: str) -> None:
    line = refused(run("evaluate", "--data", colours, "--ckpt", best, f"--threshold={threshold}"), Exit.USAGE)
    needs = "needs a number" if threshold == "half" else "must be 0 to 1"
    assert line == f"--threshold {threshold}: {needs}"


@pytest.mark.usefixtures("untouched")
def test_three_classes_have_no_positive_one_and_no_threshold(run: Run, three: tuple[Path, Path]) -> None:
    data, ckpt = three
    for flag, value in (("--positive", "a"), ("--threshold", "0.5")):
        line = refused(run("evaluate", "--data", data, "--ckpt", ckpt, flag, value), Exit.USAGE)
        assert line == f"{flag} is for two classes, and {ckpt} has 3; drop {flag}"


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("flag", "name"),
    [
        *(("--out", "report"), ("--out", "test/report"), ("--predictions", "rows.csv"), ("--json", "report.json")),
        ("--out", ""),
    ],
)
def test_nothing_is_written_into_the_data(
    run: Run, best: Path, colours: Path, tmp_path: Path, flag: str, name: str
) -> None:
    data = Path(shutil.copytree(colours, tmp_path / "data"))
    before = sorted(data.rglob("*"))
    (tmp_path / "link").symlink_to(data)
    for folder in (data, tmp_path / "link"):
        target = folder / name
        line = refused(run("evaluate", "--data", data, "--ckpt", best, flag, target), Exit.USAGE)
        assert line == f"{flag} {target}: is inside --data {data}, where nothing is written; name another {flag}"
    assert sorted(data.rglob("*")) == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("flag", "name", "reason"),
    [
        ("--predictions", "none/rows.csv", "no such file or directory; make the folder first"),
        ("--predictions", "folder", "is a directory; name a file"),
        ("--predictions", "taken/rows.csv", "a file is where a folder is needed; name another path"),
        ("--json", "none/report.json", "no such file or directory; make the folder first"),
        ("--json", "folder", "is a directory; name a file"),
    ],
)
def test_what_cannot_be_written_is_found_before_the_evaluation(
    run: Run, best: Path, colours: Path, tmp_path: Path, flag: str, name: str, reason: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "folder").mkdir()
    line = refused(run("evaluate", "--data", colours, "--ckpt", best, flag, tmp_path / name), Exit.WRITE)
    assert line == f"{tmp_path / name}: cannot write: {reason}"
    assert sorted(os.listdir(tmp_path)) == ["folder", "taken"]
    assert (tmp_path / "taken").read_text() == "a file"


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["taken", "taken/below"])
def test_a_file_is_no_folder(run: Run, best: Path, colours: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").write_text("a file")
    line = refused(run("evaluate", "--data", colours, "--ckpt", best, "--out", tmp_path / name), Exit.WRITE)
    assert line == f"--out {tmp_path / name}: {tmp_path / 'taken'} is a file; name a folder"
    assert (tmp_path / "taken").read_text() == "a file"


@pytest.mark.usefixtures("untouched")
def test_a_usage_error_leaves_no_folder_behind(run: Run, best: Path, colours: Path, tmp_path: Path) -> None:
    result = run("evaluate", "--data", colours, "--ckpt", best, "--out", tmp_path / "report", "--positive", "rad")
    refused(result, Exit.USAGE)
    assert os.listdir(tmp_path) == []


def test_pictures_of_which_little_is_left_are_named(run: Run, best: Path, colours: Path, tmp_path: Path) -> None:
    data = shutil.copytree(colours, tmp_path / "data")
    options = ("--ckpt", best, "--workers", 0, "--batch-size", 5)
    assert "warning" not in run("evaluate", "--data", data, *options).stderr
    for name in ("blue/03.png", "red/05.png"):
        Image.fromarray(np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)).save(data / "test" / name)
    result = run("evaluate", "--data", data, *options)
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert line.startswith("warning: 2 of 12 images have more than 8 bits per channel and come out nearly black, ")
    assert f"(first: {data / 'test/blue/03.png'})" in line
