"""`imgcls export`: what was typed wrong is found before any work, and a signal leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from imgcls.errors import Exit
from imgcls.registry import EXPORTERS

Run = Callable[..., Result]


@pytest.fixture
def home(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with best.pt, a link to it, a folder and an image folder."""
    shutil.copy(best, tmp_path / "best.pt")
    (tmp_path / "link.onnx").symlink_to("best.pt")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "data" / "train" / "red").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the writers fail with exit code 1."""

    def write(*arguments: object) -> None:
        raise AssertionError("the export began")

    for module in EXPORTERS.values():
        monkeypatch.setattr(f"{module}.write", write)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--format onxx", "--format onxx: not known (did you mean 'onnx'?); choose from: onnx, torchscript, pt2, safe"),
        ("--format ONNX", "--format ONNX: not known (did you mean 'onnx'?)"),
        ("--format coreml", "--format coreml: not known; choose from: onnx, torchscript, pt2, safetensors"),
        ("--input float16", "--input float16: not known (did you mean 'float32'?); choose from: uint8, float32"),
        ("--output best.pt2", "--output best.pt2: the name of another format; type --format pt2 or another name"),
        ("--format pt2 --output a.onnx", "--output a.onnx: the name of another format; type --format onnx or"),
        ("--output best.pt", "--output best.pt: the name of a checkpoint; type --output best.onnx"),
        ("--output link.onnx", "--output link.onnx: is best.pt itself; name another file"),
        ("--format safetensors --input float32", "--input float32: safetensors holds weights and no network; drop"),
        ("--ckpt none.pt", "--ckpt none.pt: no such file; name a checkpoint"),
        ("--ckpt folder.onnx --output a.onnx", "--ckpt folder.onnx: is a folder; name a checkpoint"),
        ("--data data --output data/best.onnx", "--output data/best.onnx: is inside --data data, where nothing is"),
        ("--data data --output data/train/x", "--output data/train/x: is inside --data data, where nothing is"),
        ("--data data --json data/x.json", "--json data/x.json: is inside --data data, where nothing is"),
        ("--output a.onnx --json ./a.onnx", "--json ./a.onnx: is a.onnx itself; name another file"),
        ("--output /dev/null", "--output /dev/null: is a device or a pipe"),
        ("--data nowhere", "--data nowhere: no such folder or data set"),
        ("--fromat onnx", "--fromat: no such option (did you mean '--format'?)"),
    ],
)
def test_what_was_typed_wrong_is_one_line_and_exit_2(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, line: str, problem: str
) -> None:
    no_work(monkeypatch)
    before = tree(home)
    result = run("export", *line.split())
    assert result.exit_code == Exit.USAGE
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {problem}")
    assert result.stderr.count("\n") == 1
    assert tree(home) == before


@pytest.mark.parametrize("checkpoint", ["", ".", "/"])
def test_a_checkpoint_without_a_name_is_a_usage_error(run: Run, home: Path, checkpoint: str) -> None:
    result = run("export", "--ckpt", checkpoint)
    assert result.exit_code == Exit.USAGE
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("format", ["torchscript", "pt2"])
def test_a_full_disk_is_exit_7_and_leaves_nothing(home: Path, format: str) -> None:
    """In a process of its own: torch's writers end it when they meet this themselves."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
from imgcls.cli.app import app
app(["export", "--format", "{format}"])
"""
    before = tree(home)
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.WRITE, done.stderr
    assert done.stderr.endswith(
        f"best.{format}: cannot write: file too large; name another path: it needs more than 4,000 bytes\n"
    )
    assert tree(home) == before


def test_a_description_beside_safetensors_that_cannot_be_written_is_found_first(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_work(monkeypatch)
    (home / "best.safetensors.json").mkdir()
    result = run("export", "--format", "safetensors")
    assert result.exit_code == Exit.WRITE
    assert not (home / "best.safetensors").exists()


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("missing/best.onnx", "missing/best.onnx: cannot write: no such file or directory; make the folder first"),
        ("folder.onnx", "folder.onnx: cannot write: is a directory; name a file"),
        ("best.pt/best.onnx", "best.pt/best.onnx: cannot write: a file is where a folder is needed; name another path"),
    ],
)
def test_an_output_that_cannot_be_written_is_exit_7_before_any_work(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, output: str, problem: str
) -> None:
    no_work(monkeypatch)
    before = tree(home)
    result = run("export", "--output", output)
    assert result.exit_code == Exit.WRITE
    assert result.stderr == f"error: {problem}\n"
    assert tree(home) == before


@pytest.mark.parametrize("content", [b"", b"just text", b"PK\x03\x04 a broken zip"])
def test_a_file_that_is_no_checkpoint_is_exit_4(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    no_work(monkeypatch)
    (home / "best.pt").write_bytes(content)
    result = run("export")
    assert result.exit_code == Exit.CHECKPOINT
    assert result.stderr.startswith("error: best.pt: ")
    assert result.stderr.count("\n") == 1
    assert not (home / "best.onnx").exists()


def test_data_with_an_unreadable_image_is_exit_3(
    run: Run, home: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_work(monkeypatch)
    shutil.copytree(colours / "test", home / "data" / "test")
    (home / "data/test/red/03.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    result = run("export", "--data", "data")
    assert result.exit_code == Exit.DATA
    assert "error: data/test/red/03.png: " in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (home / "best.onnx").exists()


SLEEPING_WRITER = """
import sys, time
from imgcls.cli.app import app
from imgcls.exporters import onnx

def write(exported, path):
    path.write_bytes(b"half a f")
    print("begun", flush=True)
    time.sleep(300)

onnx.write = write
app(sys.argv[1:], prog_name="imgcls")
"""
SLEEPING_PROOF = """
import sys
from imgcls.cli.app import app
from imgcls.exporters import onnx

onnx.write = lambda exported, path: path.write_bytes(b"a file")
sys.executable = "./python"
app(sys.argv[1:], prog_name="imgcls")
"""


@pytest.mark.parametrize("code", [SLEEPING_WRITER, SLEEPING_PROOF], ids=["writing", "proving"])
def test_sigterm_leaves_nothing_behind(home: Path, code: str) -> None:
    """Neither in the folder nor among the temporary files, and no process; an older export stays."""
    (home / "best.onnx").write_bytes(b"older")
    (home / "temporary").mkdir()
    # It waits, because a signal at the very moment when Popen returns would miss the new process.
    (home / "python").write_text('#!/bin/sh\nsleep 1\necho "$$" >pid\nexec sleep 300\n')
    (home / "python").chmod(0o700)
    before = tree(home)
    process = subprocess.Popen(
        [sys.executable, "-c", code, "export"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(home / "temporary")},
    )
    assert process.stdout is not None
    if code == SLEEPING_WRITER:
        assert process.stdout.readline() == b"begun\n"
    else:
        wait_for(home / "pid", process)
    assert list(home.glob(".imgcls-*.tmp")), "there is something to remove"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert b"Traceback" not in errors
    assert b"error" not in errors
    if code == SLEEPING_PROOF:
        with pytest.raises(ProcessLookupError):
            os.kill(int((home / "pid").read_text()), 0)
        (home / "pid").unlink()
    assert tree(home) == before


def wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a file has content, or the process that shall write it has ended."""
    while process.poll() is None and not (file.exists() and file.read_text().strip()):
        time.sleep(0.05)
