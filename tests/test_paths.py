"""What is typed as a path is judged by name and first bytes: what is read is there, and what will be written may be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from imgcls import files
from imgcls.errors import CheckpointError, Exit, UsageError, WriteError
from imgcls.paths import (
    KINDS,
    at_hand,
    check_checkpoint,
    check_model,
    check_new_folder,
    check_outside,
    check_result,
    check_run_folder,
    check_source,
    check_weights,
    holds_run,
)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# What is read --------------------------------------------------------------------------------------------------------


def test_a_source_is_a_folder_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    (tmp_path / "list.csv").touch()
    for text in ("pets", "pets/", str(tmp_path), "mnist", "mnist:elsewhere"):
        check_source(text)
    for text, problem in {
        "": "--data is missing",
        "list.csv": "is a file; give the folder",
        "pest": "no such folder or data set (did you mean 'pets/'?); names: cifar10, ",
        "minst": "(did you mean 'mnist'?)",
    }.items():
        with pytest.raises(UsageError) as caught:
            check_source(text)
        assert problem in str(caught.value)


def test_a_checkpoint_is_a_file_of_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("text.pt", "run/best.pt", "model.onnx", "model.torchscript"):
        (tmp_path / name).write_text("hello")
    os.mkfifo(tmp_path / "pipe.pt")
    wanted = "name a checkpoint such as runs/…/best.pt"
    for name, problem in {
        "txet.pt": f"no such file (did you mean 'text.pt'?); {wanted}",
        "zebra": f"no such file; {wanted}",
        "run": f"is a folder (did you mean 'run/best.pt'?); {wanted}",
        "pipe.pt": f"is no regular file; {wanted}",
    }.items():
        for flag in ("", "--ckpt"):
            with pytest.raises(UsageError) as caught:
                check_checkpoint(name, flag)
            assert str(caught.value) == f"{flag} {name}: {problem}".strip()
    for name, problem in {
        "text.pt": "is text, not weights: it begins with 'hello'; download the file itself",
        "model.torchscript": "is an exported torchscript file; give the checkpoint it was made from",
        "model.onnx": "is an exported onnx file; give the checkpoint it was made from",
    }.items():
        with pytest.raises(CheckpointError) as refused:
            check_checkpoint(name)
        assert str(refused.value) == f"{name}: {problem}"
    check_model("model.onnx")
    with pytest.raises(
        UsageError, match=r"--ckpt none\.onnx: no such file.*; name an exported file such as best\.onnx"
    ):
        check_model("none.onnx", "--ckpt")
    with pytest.raises(CheckpointError, match="is text, not weights"):
        check_weights("text.pt")


# What will be written ------------------------------------------------------------------------------------------------


def test_a_folder_to_be_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_new_folder(tmp_path / "a/b")
    for name in ("file", "file/below"):
        with pytest.raises(WriteError, match=rf"^--out .*{name}: .*/file is a file; name a folder$"):
            check_new_folder(tmp_path / name)
    assert names(tmp_path) == ["file"]


def test_a_folder_that_holds_a_run_is_used_again_only_when_told(tmp_path: Path) -> None:
    assert not holds_run(tmp_path)
    run = {"run": {"status": "failed: out of luck"}}
    for content, taken in ((json.dumps(run), False), (json.dumps({"run": {}}), True), ("{", True), ("[]", True)):
        (tmp_path / "config.json").write_text(content)
        assert holds_run(tmp_path) == taken
    (tmp_path / "config.json").write_text(json.dumps(run))
    check_run_folder(str(tmp_path), "data", again=False)
    (tmp_path / "last.pt").touch()
    check_run_folder(str(tmp_path), "data", again=True)
    with pytest.raises(UsageError, match="holds a run; type --resume to go on"):
        check_run_folder(str(tmp_path), "data", again=False)


def test_check_result_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("old")
    for name in ("new.csv", "old.csv"):
        check_result(tmp_path / name, "--predictions")
    assert names(tmp_path) == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "old"


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("folder", "is a directory; name a file"),
        ("link to folder", "is a directory; name a file"),
        ("missing/x.csv", "no such file or directory; make the folder first"),
        ("broken link", "no such file or directory; make the folder first"),
        ("file/x.csv", "a file is where a folder is needed; name another path"),
    ],
)
def test_check_result_refuses_what_cannot_be_written(tmp_path: Path, where: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link to folder").symlink_to("folder")
    (tmp_path / "broken link").symlink_to("missing/x.csv")
    before = names(tmp_path)
    with pytest.raises(WriteError) as caught:
        check_result(tmp_path / where, "--predictions")
    assert caught.value.exit_code == Exit.WRITE
    assert str(caught.value) == f"{tmp_path / where}: cannot write: {reason}"
    assert names(tmp_path) == before


def test_check_result_looks_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.csv").symlink_to("folder/new.csv")
    check_result(tmp_path / "link.csv", "--predictions")
    files.write_text(tmp_path / "link.csv", "rows")
    assert (tmp_path / "folder/new.csv").read_text() == "rows"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_check_result_finds_an_unwritable_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="permission denied"):
        check_result(tmp_path / "x.csv", "--predictions")


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs /dev/null")
def test_check_result_lets_a_device_be(tmp_path: Path) -> None:
    check_result("/dev/null", "--predictions")
    os.mkfifo(tmp_path / "fifo")
    check_result(tmp_path / "fifo", "--predictions")
    assert names(tmp_path) == ["fifo"]


@pytest.mark.parametrize(
    "where",
    [
        *("data/x.csv", "data/train/cat/x.csv", "data/none/x.csv", "link/x.csv", "data/../data/x.csv"),
        *("link to train/x.csv", "data", "data/", "link"),
    ],
)
@pytest.mark.parametrize("data", ["data", "data/", "link", "./data/train/.."])
def test_a_result_inside_the_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, where: str
) -> None:
    (tmp_path / "data/train/cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "link to train").symlink_to(tmp_path / "data/train")
    monkeypatch.chdir(tmp_path)
    for path in (where, str(tmp_path / where)):
        with pytest.raises(UsageError) as caught:
            check_outside(path, data, "--json")
        assert str(caught.value) == (
            f"--json {path}: is inside --data {data}, where nothing is written; name another --json"
        )


@pytest.mark.parametrize("where", ["x.csv", "database/x.csv", "data.csv", "data/../x.csv", "inside out/x.csv"])
def test_a_result_beside_the_data_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "database").mkdir()
    (tmp_path / "data/way out").symlink_to(tmp_path / "database")
    (tmp_path / "inside out").symlink_to("data/way out")
    monkeypatch.chdir(tmp_path)
    check_outside(where, "data", "--json")
    check_outside(tmp_path / where, str(tmp_path / "data"), "--json")


@pytest.mark.parametrize(("data", "where"), [("mnist:sets", "sets/report"), ("cifar10", "data/report")])
def test_the_root_of_a_data_set_is_the_users_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("sets", "data"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UsageError, match=f"--out {where}: is inside --data {data}"):
        check_outside(where, data, "--out")
    check_outside("cifar10/report", data, "--out")


def test_a_result_never_replaces_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_text("weights")
    (tmp_path / "link.csv").symlink_to("best.pt")
    with pytest.raises(UsageError, match=r"--predictions .*link\.csv: is .*best\.pt itself; name another file"):
        check_result(tmp_path / "link.csv", "--predictions", kept=[str(tmp_path / "best.pt")])


@pytest.mark.parametrize(
    ("kind", "name", "problem"),
    [
        ("picture", "my.pt", ".pt is no name for a picture; type --x {}/my.png"),
        ("picture", "photo.GIF", ".GIF is no name for a picture; type --x {}/photo.png"),
        ("picture", "grid", "a picture ends in .png, .jpg, .jpeg, .webp, .pdf, .svg; type --x {}/grid.png"),
        ("picture", "grid.txt", "a picture ends in .png, .jpg, .jpeg, .webp, .pdf, .svg; type --x {}/grid.txt.png"),
        ("JSON", "best.pt", ".pt is no name for a JSON file; type --x {}/best.json"),
        ("JSON", "cat.JPG", ".JPG is no name for a JSON file; type --x {}/cat.json"),
        ("JSON", "metrics.jsonl", ".jsonl is no name for a JSON file; type --x {}/metrics.json"),
        ("CSV", "model.onnx", ".onnx is no name for a CSV file; type --x {}/model.csv"),
        ("CSV", "report.json", ".json is no name for a CSV file; type --x {}/report.csv"),
        ("onnx", "model.png", ".png is no name for an onnx file; type --x {}/model.onnx"),
        ("JSON", "checkpoint", "holds no text and would be lost; type --x {}/checkpoint.json"),
        ("CSV", "link", ".pt is no name for a CSV file; type --x {}/link.csv"),
    ],
)
def test_nothing_is_written_under_the_name_of_another_kind_nor_over_one(
    tmp_path: Path, kind: str, name: str, problem: str
) -> None:
    (tmp_path / "checkpoint").write_bytes(b"PK\x03\x04\0\0")
    (tmp_path / "link").symlink_to("best.pt")
    with pytest.raises(UsageError) as caught:
        check_result(tmp_path / name, "--x", kind=kind)
    assert str(caught.value) == f"--x {tmp_path / name}: {problem.format(tmp_path)}"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("picture", f"grid{ending}") for ending in (".png", ".PNG", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")),
        *(("JSON", name) for name in ("a.json", "a", "a.txt", "a.log", "tmp.aB3x", "old", "empty", "text")),
        *(("CSV", name) for name in ("a.csv", "a", "a.txt", "old")),
        *(("onnx", name) for name in ("a.onnx", "old")),
    ],
)
def test_its_own_name_or_one_that_says_nothing_is_taken(tmp_path: Path, kind: str, name: str) -> None:
    """`--json "$(mktemp)"` is an empty file of any name."""
    (tmp_path / "old").write_text('{"older": true}')
    (tmp_path / "text").write_text("a text")
    (tmp_path / "empty").touch()
    check_result(tmp_path / name, "--x", kind=kind)


def test_a_device_or_a_pipe_has_any_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.pt")
    for kind in KINDS:
        check_result(tmp_path / "fifo.pt", "--x", kind=kind)
        check_result("/dev/null", "--x", kind=kind)


# Slips ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "endings", "meant"),
    [
        ("datset", (), "dataset/"),
        ("Dataset/", (), "dataset/"),
        ("dataset/trian", (), "dataset/train/"),
        ("dtaset/train/", (), "dataset/train/"),
        ("./datset", (), "dataset/"),
        ("dataset/zebra", (), None),
        ("nowhere", (), None),
        ("runs/a/bset.pt", (".pt", ".onnx"), "runs/a/best.pt"),
        ("run/a/best.pt", (".pt", ".onnx"), "runs/a/best.pt"),
        ("runs/a/best.onx", (".onnx",), "runs/a/best.onnx"),
        ("runs/a/note.pt", (".pt",), None),
        ("folder.onnx", (".onnx",), None),
    ],
)
def test_what_a_missing_path_may_be_a_slip_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, endings: tuple[str, ...], meant: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("dataset/train", "dataset/val", "runs/a", ".datset", "folder.onnx"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("best.pt", "best.onnx", "note.txt"):
        (tmp_path / "runs/a" / name).touch()
    assert at_hand(typed, endings) == meant
    if meant and typed != "./datset":
        assert at_hand(tmp_path / typed, endings) == str(tmp_path / meant) + ("/" if meant.endswith("/") else "")
