"""Files are written whole or not at all, and leave nothing behind when they fail."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgcls import files
from imgcls.errors import WriteError


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_the_file_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    with files.replacing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.parent == target.parent  # a rename across file systems would not be atomic
    assert target.read_text() == "new"
    assert names(tmp_path) == ["report.json"]


@pytest.mark.parametrize("failure", [ValueError("a bug"), KeyboardInterrupt()])
def test_an_older_file_survives_an_exception(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    with pytest.raises(type(failure)), files.replacing(target) as temporary:
        temporary.write_text("half of the n")
        raise failure
    assert target.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_a_full_disk_leaves_the_older_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "report.json"
    files.write_text(target, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"report\.json: cannot write: no space left on device; free space"):
        files.write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_a_full_disk_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it where that is known, else more than what was written."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(WriteError) as caught, files.replacing(tmp_path / "x.onnx") as temporary:
        temporary.write_bytes(bytes(1500))
        raise full
    sentence = f"{tmp_path}/x.onnx: cannot write: no space left on device; free space"
    assert str(caught.value) == f"{sentence}: it needs more than 1,500 bytes"

    def fails(path: Path, content: bytes) -> None:
        raise full

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(WriteError) as caught:
        files.write_text(tmp_path / "x.onnx", 2000 * "ä")
    assert str(caught.value) == f"{sentence}: it needs 4,000 bytes"


def test_files_that_are_replaced_together_are_each_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to the temporary path of another file fails under that file's name."""
    write_bytes = Path.write_bytes

    def fails(path: Path, content: bytes) -> None:
        if content == b"second":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(WriteError, match=r"/second: cannot write: "), contextlib.ExitStack() as stack:
        for name in ("first", "second", "third"):
            files.write_text(stack.enter_context(files.replacing(tmp_path / name)), name)
    assert names(tmp_path) == []


def test_content_reaches_the_disk_before_its_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut a renamed file whose content was not synced can be empty."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        kind = "folder" if os.path.isdir(os.readlink(f"/proc/self/fd/{descriptor}")) else "file"
        calls.append(f"sync {kind}")
        fsync(descriptor)

    def record_replace(source: str, target: str) -> None:
        calls.append("rename")
        replace(source, target)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc to tell what a descriptor is")
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    files.write_text(tmp_path / "report.json", "new")
    assert calls == ["sync file", "rename", "sync folder"]


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    files.write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs /dev/null")
def test_a_device_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")  # a mistake here shall not cost the machine its device
    files.write_text(tmp_path / "null", "gone")
    assert (tmp_path / "null").is_symlink()
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_a_write_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="permission denied"):
        files.write_text(tmp_path / "report.json", "new")
    with pytest.raises(WriteError, match="permission denied"):
        files.check_folder(tmp_path)


def test_a_missing_folder_is_a_write_error_with_exit_code_7(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="no such file or directory") as caught:
        files.write_text(tmp_path / "missing" / "report.json", "new")
    assert caught.value.exit_code == 7


def test_text_keeps_the_bytes_of_names_that_are_not_utf8(tmp_path: Path) -> None:
    files.write_text(tmp_path / "list.txt", os.fsdecode(b"caf\xe9.jpg"))
    assert (tmp_path / "list.txt").read_bytes() == b"caf\xe9.jpg"


def test_json_ends_with_a_newline(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"classes": ["ant", "bee"]})
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == {"classes": ["ant", "bee"]}


def test_point_makes_and_moves_a_relative_link(tmp_path: Path) -> None:
    link = tmp_path / "best.pt"
    for run in ("first", "second"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "best.pt").write_text(run)
        assert files.point(link, tmp_path / "runs" / run / "best.pt")
        assert os.readlink(link) == f"runs/{run}/best.pt"  # the whole folder can be moved
        assert link.read_text() == run
    assert names(tmp_path) == ["best.pt", "runs"]


def test_point_replaces_a_dangling_link(tmp_path: Path) -> None:
    link, target = tmp_path / "best.pt", tmp_path / "target"
    link.symlink_to("gone")
    target.write_text("here")
    assert files.point(link, target)
    assert link.read_text() == "here"


def test_point_leaves_a_regular_file_alone(tmp_path: Path) -> None:
    link = tmp_path / "best.pt"
    link.write_text("mine")
    assert not files.point(link, tmp_path / "other")
    assert link.read_text() == "mine"
    assert not link.is_symlink()


def test_check_folder_makes_missing_parents_and_leaves_no_probe(tmp_path: Path) -> None:
    files.check_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("where", ["taken", "taken/below"])
def test_check_folder_refuses_a_file_in_the_way(tmp_path: Path, where: str) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WriteError, match="a file is where a folder is needed"):
        files.check_folder(tmp_path / where)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_a_log_behind_standard_output_is_not_replaced(tmp_path: Path) -> None:
    """`imgcls evaluate --predictions /dev/stdout >> log.txt`."""
    log = tmp_path / "log.txt"
    log.write_text("old\n")
    code = "from imgcls import files; files.write_text('/dev/stdout', 'new')"
    with log.open("a") as stdout:
        done = subprocess.run([sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert log.read_text() == "old\n"
    assert b"would be replaced; name a file of its own" in done.stderr


def test_a_row_of_csv_comes_back_whatever_is_in_it() -> None:
    cells = ["a,b", 'say "x"', "two\nlines", "car\rriage", "", "ä"]
    assert next(csv.reader(io.StringIO(files.csv_line(cells), newline=""))) == cells
    assert files.csv_line(["a", 1]) == "a,1\n"


# Names of other kinds ------------------------------------------------------------------------------------------------
