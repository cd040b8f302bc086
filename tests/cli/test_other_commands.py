"""inspect-batch, info and sample-data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from carrying import shows
from drawing import draw_tree
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import Result

from imgcls import plots
from imgcls.data import sample
from imgcls.engine import inspect as module
from imgcls.errors import Exit
from imgcls.plots import Pixels

Run = Callable[..., Result]


@shows("inspect-batch", "split", "output")
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


def test_inspect_batch_gives_json_alone_on_stdout_and_the_rest_on_stderr(run: Run, colours: Path) -> None:
    line = ("inspect-batch", "--data", colours, "--size", 16, "--workers", 0)
    printed, result = run(*line), run(*line, "--json", "-")
    assert json.loads(result.stdout)["images"]["shape"] == [24, 3, 16, 16]
    assert result.stderr == printed.stdout
    assert "\nclass\tindex\ttrain\tval\ttest\n" in printed.stdout


def test_inspect_batch_puts_each_picture_under_its_class(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Pixels, tuple[int, ...], list[str]]] = []

    def contact_sheet(*arguments: Any) -> Figure:
        drawn.append(arguments)
        return Figure()

    monkeypatch.setattr(plots, "contact_sheet", contact_sheet)
    line = ("inspect-batch", "--data", colours, "--size", 16, "--workers", 0, "--augment", "none")
    result = run(*line, "--output", tmp_path / "grid.png")
    assert result.stderr == f"contact sheet: {tmp_path / 'grid.png'}\n"
    ((images, labels, classes),) = drawn
    assert (images.shape, classes) == ((24, 16, 16, 3), ["blue", "red"])
    assert [int(image[..., 0].mean() > image[..., 2].mean()) for image in images] == list(labels)
    assert 0 < sum(labels[:12]) < 12, "not shuffled"


def test_inspect_batch_draws_classes_of_any_name(run: Run, tmp_path: Path) -> None:
    names = ("$x^2$", "金魚", "new\nline", "n" * 100, os.fsdecode(b"caf\xe9"))
    data = draw_tree(tmp_path / "data", {f"train/{name}": 3 for name in names}, size=(8, 8))
    line = ("inspect-batch", "--data", data, "--size", 8, "--workers", 0, "--val-split", 0)
    result = run(*line, "--output", tmp_path / "grid.png", "--json", tmp_path / "batch.json")
    assert result.exit_code == Exit.DONE, result.output
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert set(json.loads((tmp_path / "batch.json").read_text())["class_to_idx"]) == set(names)
    assert "new\\nline\t" in result.stdout


@pytest.mark.parametrize("flag", ["--output", "--json"])
def test_inspect_batch_refuses_what_it_could_not_write_before_it_begins(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setattr(module, "inspect", lambda *arguments: pytest.fail("a batch is loaded"))
    (tmp_path / "data").symlink_to(colours)
    cases = {
        colours / "grid": (Exit.USAGE, f"{flag} {colours}/grid: is inside --data {colours}, where nothing is written"),
        tmp_path / "data/grid": (Exit.USAGE, f"{flag} {tmp_path}/data/grid: is inside --data {colours}"),
        tmp_path / "none/grid": (Exit.WRITE, f"{tmp_path}/none/grid: cannot write: no such file or directory"),
        tmp_path: (Exit.WRITE, f"{tmp_path}: cannot write: is a directory; name a file"),
    }
    for target, (code, start) in cases.items():
        result = run("inspect-batch", "--data", colours, flag, target)
        assert (result.exit_code, result.stdout) == (code, "")
        assert result.stderr.startswith(f"error: {start}")
        assert result.stderr.count("\n") == 1
    assert not (colours / "grid").exists()


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


@shows("sample-data", "seed")
def test_another_seed_draws_other_pictures(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SPLITS", {"train": 1})
    drawn = []
    for name, seed in (("a", 0), ("b", 0), ("c", 7)):
        assert run("sample-data", tmp_path / name, "--seed", seed).exit_code == 0
        drawn.append((tmp_path / name / "train/star/star-000.png").read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_contact_sheet_is_what_its_name_says(run: Run, colours: Path, tmp_path: Path) -> None:
    line = ("inspect-batch", "--data", colours, "--size", 16, "--workers", 0, "--batch-size", 2, "--output")
    for name, start in {"a.jpg": b"\xff\xd8\xff", "a.PNG": b"\x89PNG", "a.pdf": b"%PDF", "a.svg": b"<?xml"}.items():
        assert run(*line, tmp_path / name).exit_code == Exit.DONE
        assert (tmp_path / name).read_bytes().startswith(start)


def test_a_checkpoint_is_never_overwritten_by_a_picture_or_a_table(
    run: Run, best: Path, colours: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "my.pt"
    mine.write_bytes(best.read_bytes())
    lines: list[tuple[object, ...]] = [
        ("inspect-batch", "--data", colours, "--output", mine),
        ("inspect-batch", "--data", colours, "--json", mine),
        ("info", best, "--json", mine),
        ("evaluate", "--data", colours, "--ckpt", best, "--json", mine),
        ("evaluate", "--data", colours, "--ckpt", best, "--predictions", mine),
        ("export", "--ckpt", best, "--output", mine),
        ("export", "--ckpt", best, "--json", mine),
        ("train", "--data", colours, "--json", mine),
    ]
    for line in lines:
        result = run(*line)
        assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
        assert result.stderr.startswith(f"error: {line[-2]} {mine}: ")
        assert f"type {line[-2]} {tmp_path / 'my.'}" in result.stderr
        assert result.stderr.count("\n") == 1
    assert mine.read_bytes() == best.read_bytes()


def test_info_shows_what_was_decided(run: Run, best: Path) -> None:
    page = dict(line.split(maxsplit=1) for line in run("info", best).stdout.splitlines())
    decided = dict(part.rsplit(" ", 1) for part in page["decided"].split("; "))
    assert (decided["lr"], decided["size"], decided["workers"]) == ("0.01", "16", "0")
