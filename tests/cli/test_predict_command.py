from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from carrying import shows
from PIL import Image
from typer.testing import Result

from imgcls.cli.predict import WRITERS
from imgcls.errors import Exit
from imgcls.schema import Prediction, Score

Run = Callable[..., Result]


@shows("predict", "ckpt")
def test_one_row_per_input_in_input_order(run: Run, best: Path, colours: Path) -> None:
    red, blue = colours / "test/red/00.png", colours / "test/blue/00.png"
    result = run("predict", red, blue, red, "--ckpt", best)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [(path, name) for path, name, _ in rows] == [(str(red), "red"), (str(blue), "blue"), (str(red), "red")]
    assert all(0.5 < float(confidence) <= 1 for *_, confidence in rows)


def test_a_failed_input_is_a_row_of_its_own(run: Run, best: Path, colours: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.jpg"
    page.write_text("<html>")
    red = colours / "test/red/00.png"
    result = run("predict", page, red, tmp_path / "none.png", red, "--ckpt", best)
    assert result.exit_code == Exit.SOME_FAILED
    rows = result.stdout.splitlines()
    assert rows[0] == f"{page}\t\t"
    assert rows[2] == f"{tmp_path / 'none.png'}\t\t"
    assert [row.split("\t")[1] for row in rows] == ["", "red", "", "red"]
    assert f"error: {page}: not an image of a supported format" in result.stderr
    assert f"error: {tmp_path / 'none.png'}: no such file" in result.stderr


def test_folders_globs_and_stdin(run: Run, best: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(colours)
    folder = run("predict", "test", "--ckpt", best).stdout
    assert [row.split("\t")[0] for row in folder.splitlines()][:2] == ["test/blue/00.png", "test/blue/01.png"]
    assert len(folder.splitlines()) == 12
    assert run("predict", "test/*/*.png", "--ckpt", best).stdout == folder
    listed = "\n".join(row.split("\t")[0] for row in folder.splitlines()).encode()
    assert run("predict", "-", "--ckpt", best, stdin=listed).stdout == folder
    assert run("predict", "-", "-0", "--ckpt", best, stdin=listed.replace(b"\n", b"\0")).stdout == folder


def test_what_a_folder_holds_besides_images_is_said(run: Run, best: Path, colours: Path, tmp_path: Path) -> None:
    shutil.copy(colours / "test/red/00.png", tmp_path / "a.png")
    (tmp_path / "notes.txt").touch()
    with Image.open(tmp_path / "a.png") as image:
        image.save(tmp_path / "b.gif")
    result = run("predict", tmp_path, "--ckpt", best)
    assert len(result.stdout.splitlines()) == 1
    assert "left out (.gif 1, .txt 1); name them" in result.stderr
    assert run("predict", tmp_path / "b.gif", "--ckpt", best).stdout.split("\t")[1] == "red"


@shows("predict", "top_k")
def test_top_k_adds_pairs(run: Run, best: Path, colours: Path) -> None:
    cells = run("predict", colours / "test/red/00.png", "--top-k", 5, "--ckpt", best).stdout.strip().split("\t")
    assert [cells[1], cells[3]] == ["red", "blue"]
    assert float(cells[2]) + float(cells[4]) == pytest.approx(1, abs=2e-4)


def test_the_stable_names_of_json_lines(run: Run, best: Path, colours: Path) -> None:
    result = run("predict", colours / "test/red/00.png", "none.jpg", "--format", "jsonl", "--ckpt", best)
    good, bad = (json.loads(line) for line in result.stdout.splitlines())
    assert set(good) == {"path", "class", "confidence", "top", "error"}
    assert (good["class"], good["error"]) == ("red", None)
    assert good["top"] == [{"class": "red", "confidence": good["confidence"]}]
    assert bad == {
        "path": "none.jpg",
        "class": None,
        "confidence": None,
        "top": None,
        "error": "none.jpg: no such file",
    }
    whole = run("predict", colours / "test/red/00.png", "none.jpg", "--format", "json", "--ckpt", best)
    assert json.loads(whole.stdout) == [good, bad]


@shows("predict", "format")
def test_csv_has_a_header_and_one_width(run: Run, best: Path, colours: Path) -> None:
    arguments = (colours / "test/red/00.png", "none.jpg", "--top-k", 2, "--format", "csv", "--ckpt", best)
    rows = list(csv.reader(io.StringIO(run("predict", *arguments).stdout)))
    assert rows[0] == ["path", "class", "confidence", "class_2", "confidence_2", "error"]
    assert {len(row) for row in rows} == {6}
    assert rows[2] == ["none.jpg", "", "", "", "", "none.jpg: no such file"]


def test_the_threshold_of_two_classes_moves_the_answer(run: Run, best: Path, colours: Path) -> None:
    red, blue = colours / "test/red/00.png", colours / "test/blue/00.png"
    names = [
        [row.split("\t")[1] for row in run("predict", red, blue, "--threshold", t, "--ckpt", best).stdout.splitlines()]
        for t in (0, 0.5, 1)
    ]
    assert names == [["red", "red"], ["red", "blue"], ["blue", "blue"]]  # red, the second class, from 0 and never


def test_the_threshold_keeps_the_other_class_in_sight(run: Run, best: Path, colours: Path) -> None:
    line = ("predict", colours / "test/blue/00.png", "--threshold", 0, "--top-k", 2, "--ckpt", best)
    cells = run(*line).stdout.strip().split("\t")
    assert (cells[1], cells[3]) == ("red", "blue")
    assert float(cells[4]) > float(cells[2])


def test_strange_names_come_back_unchanged(run: Run, best: Path, colours: Path, tmp_path: Path) -> None:
    names = ["new\nline.png", 'quo"te.png', "-dash.png", "esc\x1b[31m.png", "ri\u202eght.png", os.fsdecode(b"\xff.png")]
    for name in names:
        shutil.copy(colours / "test/red/00.png", tmp_path / name)
    rows = [
        json.loads(line) for line in run("predict", tmp_path, "--format", "jsonl", "--ckpt", best).stdout.splitlines()
    ]
    assert sorted(row["path"] for row in rows) == sorted(str(tmp_path / name) for name in names)
    text = run("predict", tmp_path, "--ckpt", best).stdout
    assert len(text.splitlines()) == len(names)
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_paths_of_text_rows_exist(run: Run, best: Path, colours: Path, tmp_path: Path) -> None:
    """Blanks and joiners of other scripts are no danger to a terminal."""
    odd = ("4.42.48\u202fPM", "v\u00a013.05", "写真\u3000一", "\u0645\u200c\u062e", "\U0001f469\u200d\U0001f52c")
    names = [f"{name}.png" for name in odd]
    for name in names:
        shutil.copy(colours / "test/red/00.png", tmp_path / name)
    rows = run("predict", tmp_path, "--ckpt", best).stdout.splitlines()
    assert sorted(row.split("\t")[0] for row in rows) == sorted(str(tmp_path / name) for name in names)


def test_an_error_names_the_path_as_it_is(run: Run, best: Path, tmp_path: Path) -> None:
    data = tmp_path / "two  blanks\u3000and more"
    for name in ("blue", "red"):
        (data / name).mkdir(parents=True)
    assert f"error: {data}: no images in its class" in run("evaluate", "--data", data, "--ckpt", best).stderr


def test_folders_that_are_no_ones_pictures_are_left_out_and_said(
    run: Run, best: Path, colours: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "@eaDir/a.png/THUMB.png", "sub/@eaDir/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(colours / "test/red/00.png", tmp_path / name)
    result = run("predict", tmp_path, "--ckpt", best)
    assert [row.split("\t")[0] for row in result.stdout.splitlines()] == [str(tmp_path / "a.png")]
    assert "note: hidden folders were left out (@eaDir (2 times))" in result.stderr


def test_nothing_but_pictures_of_another_kind_says_to_convert_them(run: Run, best: Path, tmp_path: Path) -> None:
    for name in ("a.HEIC", "b.heic", "notes.txt"):
        (tmp_path / name).touch()
    result = run("predict", tmp_path, "--ckpt", best)
    assert result.exit_code == Exit.USAGE
    assert f"error: {tmp_path}: no images found but 2 .heic: convert them to .jpg or .png" in result.stderr


def test_paths_that_end_with_nul_need_the_option(run: Run, best: Path) -> None:
    result = run("predict", "-", "--ckpt", best, stdin=b"a.png\0b.png\0")
    assert result.exit_code == Exit.USAGE
    assert "error: -: standard input holds NUL bytes: type -0" in result.stderr


def test_the_eight_orientations_give_one_answer(run: Run, best: Path, tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:5, :, 0], pixels[5:, :9, 2] = 200, 160
    picture = Image.fromarray(pixels)
    turned = {
        1: picture,
        2: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: picture.transpose(Image.Transpose.ROTATE_180),
        4: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: picture.transpose(Image.Transpose.TRANSPOSE),
        6: picture.transpose(Image.Transpose.ROTATE_90),
        7: picture.transpose(Image.Transpose.TRANSVERSE),
        8: picture.transpose(Image.Transpose.ROTATE_270),
    }
    for orientation, stored in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / f"{orientation}.png", exif=exif)
    rows = [
        json.loads(line) for line in run("predict", tmp_path, "--format", "jsonl", "--ckpt", best).stdout.splitlines()
    ]
    assert len(rows) == 8
    assert len({(row["class"], row["confidence"]) for row in rows}) == 1


def test_no_input_at_all_is_a_usage_error(run: Run, best: Path, tmp_path: Path) -> None:
    for argument, stdin in ((tmp_path, None), (f"{tmp_path}/*.jpg", None), ("-", b"")):
        result = run("predict", argument, "--ckpt", best, stdin=stdin)
        assert result.exit_code == Exit.USAGE
        assert "no images found" in result.stderr


@pytest.mark.parametrize("content", [b"", b"just text", b"PK\x03\x04 a broken zip"])
def test_a_file_that_is_no_checkpoint_is_exit_4(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    for command in (("predict", "a.jpg", "--ckpt"), ("evaluate", "--data", tmp_path, "--ckpt"), ("info",)):
        result = run(*command, tmp_path / "model.pt")
        assert result.exit_code == Exit.CHECKPOINT
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("nothing", ["none-*.png", "folder"])
def test_an_input_without_images_is_said_beside_those_that_have_some(
    run: Run, best: Path, colours: Path, tmp_path: Path, nothing: str
) -> None:
    (tmp_path / "folder").mkdir()
    image = colours / "test/red/00.png"
    result = run("predict", tmp_path / nothing, image, "--ckpt", best)
    assert result.exit_code == Exit.SOME_FAILED
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [str(image)]
    assert f"error: {tmp_path / nothing}: no images there; give files" in result.stderr


def test_pictures_of_which_little_is_left_are_named(run: Run, best: Path, colours: Path, tmp_path: Path) -> None:
    twelve = tmp_path / "twelve.png"
    Image.fromarray(np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)).save(twelve)
    Image.new("L", (16, 16), 3).save(tmp_path / "night.png")  # as dark, but all that the file holds
    red = colours / "test/red/00.png"
    result = run("predict", twelve, red, tmp_path, "--ckpt", best)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert line.startswith("warning: 2 of 4 images have more than 8 bits per channel and come out nearly black, ")
    assert f"(first: {twelve})" in line
    assert "warning" not in run("predict", red, tmp_path / "night.png", "--ckpt", best).stderr


# Columns -------------------------------------------------------------------------------------------------------------

TOP = (Score("cat", 0.5), Score("dog", 0.3), Score("emu", 0.2))
ANSWERS = (
    Prediction(path="sure.png", class_name="cat", confidence=0.5, top=TOP),
    Prediction(path="unsure.png", confidence=0.5, top=TOP, below_threshold=True),
    Prediction(path="none.png", error="none.png: no such file"),
)


def test_below_the_threshold_the_class_alone_is_missing() -> None:
    assert [row.rstrip("\n").split("\t") for row in WRITERS["text"](ANSWERS, 3)] == [
        ["sure.png", "cat", "0.5000", "dog", "0.3000", "emu", "0.2000"],
        ["unsure.png", "", "0.5000", "dog", "0.3000", "emu", "0.2000"],
        ["none.png", "", "", "", "", "", ""],
    ]
    assert list(csv.DictReader(WRITERS["csv"](ANSWERS, 2))) == [
        {"path": path, "class": name, "confidence": sure, "class_2": second, "confidence_2": share, "error": error}
        for path, name, sure, second, share, error in (
            ("sure.png", "cat", "0.5000", "dog", "0.3000", ""),
            ("unsure.png", "", "0.5000", "dog", "0.3000", ""),
            ("none.png", "", "", "", "", "none.png: no such file"),
        )
    ]


def test_one_class_per_image_is_one_pair_of_columns() -> None:
    """Also where a threshold made the less likely of two classes the answer, and `top` holds the other one."""
    moved = Prediction(path="a.png", class_name="dog", confidence=0.4, top=(Score("cat", 0.6),))
    assert "".join(WRITERS["text"]([*ANSWERS, moved], 1)).splitlines() == [
        "sure.png\tcat\t0.5000",
        "unsure.png\t\t0.5000",
        "none.png\t\t",
        "a.png\tdog\t0.4000",
    ]


@shows("predict", "threshold", "positive")
def test_the_positive_class_is_the_one_that_the_threshold_is_about(run: Run, best: Path, colours: Path) -> None:
    red, blue = colours / "test/red/00.png", colours / "test/blue/00.png"

    def names(*options: object) -> list[str]:
        result = run("predict", red, blue, *options, "--ckpt", best)
        assert result.exit_code == 0, result.output
        return [row.split("\t")[1] for row in result.stdout.splitlines()]

    assert names("--positive", "blue", "--threshold", 0) == ["blue", "blue"]
    assert names("--positive", "blue", "--threshold", 1) == ["red", "red"]
    assert names("--positive", "red", "--threshold", 0) == names("--threshold", 0) == ["red", "red"]
    assert names("--positive", "blue") == ["red", "blue"]
    said = run("predict", red, "--positive", "blue", "--threshold", 0.3, "--ckpt", best).stderr
    assert said.splitlines()[1] == "blue from probability 0.3 on, else red"
    wrong = run("predict", red, "--positive", "bleu", "--ckpt", best)
    assert wrong.exit_code == Exit.USAGE
    expected = f"--positive bleu: {best} has no such class (did you mean 'blue'?); choose from: blue, red"
    assert wrong.stderr == f"error: {expected}\n"


# Bytes instead of paths ----------------------------------------------------------------------------------------------


def content(format: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(stream, format)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "PDF"])
def test_the_content_of_a_picture_is_no_list_of_paths(run: Run, best: Path, format: str) -> None:
    """`cat x.png | imgcls predict -`."""
    result = run("predict", "-", "--ckpt", best, stdin=content(format))
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert result.stderr == (
        "error: -: standard input brings the content of a file, not paths; type imgcls predict FILE\n"
    )


def test_nor_is_that_of_a_checkpoint(run: Run, best: Path) -> None:
    assert run("predict", "-", "--ckpt", best, stdin=best.read_bytes()).exit_code == Exit.USAGE


def test_a_path_may_begin_as_a_picture_does(
    run: Run, best: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["BM1.png", "RIFF.png", "GIF89.png", "P6", "P5 1.png", "II.png", "caf\udce9.png"]
    for name in names:
        shutil.copy(colours / "test/red/00.png", name)
        listed = os.fsencode(name) + b"\n"
        assert run("predict", "-", "--ckpt", best, stdin=listed).stdout.split("\t")[1] == "red"
        assert run("predict", "-", "-0", "--ckpt", best, stdin=os.fsencode(name) + b"\0").exit_code == Exit.DONE
