"""The translator of errors and signals to exit codes, and how light the start is."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from imgcls.cli import info
from imgcls.errors import Exit

HEAVY = ("torch", "torchvision", "numpy", "PIL", "matplotlib")


def imgcls(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own."""
    command = [sys.executable, "-m", "imgcls", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def test_help_names_every_command_and_exit_code(run: Callable[..., Result]) -> None:
    page = run("--help").stdout
    for command in ("train", "predict", "evaluate", "inspect-batch", "info", "sample-data"):
        assert f"\n  {command} " in page
    for code in Exit:
        assert f"{int(code)} {code.meaning}" in " ".join(page.split())


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "inspect-batch", "info", "sample-data"])
def test_each_command_shows_an_example(run: Callable[..., Result], command: str) -> None:
    assert f"\n  imgcls {command} " in run(command, "--help").stdout


@pytest.mark.parametrize("option", ["--help", "--version", "train --help"])
def test_help_imports_nothing_heavy(option: str) -> None:
    code = f"""
import sys
from imgcls.cli.app import app
try:
    app({option.split()!r}, prog_name="imgcls")
except SystemExit as end:
    assert not end.code, end.code
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_without_arguments_the_help_is_shown(run: Callable[..., Result]) -> None:
    result = run()
    assert result.exit_code == 2
    assert "Usage: imgcls" in result.stderr
    assert "error:" not in result.stderr


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("trian --data x", "trian: no such command (did you mean 'train'?)"),
        ("train --epoch 3", "--epoch: no such option (did you mean '--epochs'?)"),
        ("train --data x --optimizer sdg", "--optimizer sdg: not known (did you mean 'sgd'?)"),
        ("train --data x --arch resnet81", "--arch resnet81: not known (did you mean 'resnet18'?)"),
        ("train --data x --epochs many", "--epochs many: needs a whole number"),
        ("train --data x --val-split 2", "--val-split 2.0: must be 0 to 0.9"),
        ("train", "--data is missing"),
        ("train --data nowhere", "--data nowhere: no such folder or data set"),
        ("train --data cifar1", "(did you mean 'cifar10'?)"),
        ("train --data x --amp --device cpu", "--amp needs CUDA"),
        ("train --data x --resume", "--resume needs --out"),
        ("train --data x --momentum 0.5", "--momentum 0.5 is for SGD"),
        ("train --data x --config nowhere.json", "--config nowhere.json: no such file"),
        ("train --data x --device gpu", "--device gpu: not known"),
        ("evaluate --data x", "best.pt: no such file"),
        ("evaluate --data x --split tset", "--split tset: not known (did you mean 'test'?)"),
        ("predict a.jpg", "--ckpt best.pt: no such file"),
        ("predict a.jpg --format jsn", "--format jsn: not known (did you mean 'json'?)"),
        ("predict", "Missing argument 'IMAGE...'"),
        ("predict --top-k 0 a.jpg", "--top-k 0: must be 1 or more"),
        ("info nowhere.pt", "nowhere.pt: no such file"),
        # habits of other tools
        ("train --data x --batch 8", "--batch: no such option (did you mean '--batch-size'?)"),
        ("train --data x -b 8", "-b: no such option (did you mean '--batch-size'?)"),
        ("train --data x -j 8", "-j: no such option (did you mean '--workers'?)"),
        ("train --data x --imgsz 8", "--imgsz: no such option (did you mean '--size'?)"),
        ("train --data x --patience 8", "--patience: no such option (did you mean '--early-stop'?)"),
        ("train --data x --gpus 2", "(several GPUs: torchrun --standalone --nproc-per-node N -m imgcls train)"),
        ("train --data x --device gpu", "--device gpu: not known (did you mean 'cuda'?)"),
        ("train --data x --arch vit_base_patch16_224", "not known (did you mean 'vit_b_16'?)"),
        ("train --data x --monitor accuracy", "--monitor accuracy: not known (did you mean 'val-acc'?)"),
        ("train dataset/", "dataset/: belongs to no option (did you mean '--data dataset/'?)"),
        ("train data=x epochs=3", "(did you mean '--data x'?)"),
        ("train --data x --pretrained True", "True: belongs to no option (options such as --ema or --no-flip take"),
        ("evaluate", "--data is missing: type imgcls evaluate --data FOLDER"),
        ("evaluate --data x best.pt", "best.pt: belongs to no option (did you mean '--ckpt best.pt'?)"),
        ("evaluate --data x --split valid", "--split valid: not known (did you mean 'val'?)"),
        ("predict --source x", "--source: no such option (did you mean 'imgcls predict IMAGE...', without an option?)"),
        ("info --ckpt x", "--ckpt: no such option (did you mean 'imgcls info FILE', without an option?)"),
        ("val --data x", "val: no such command (did you mean 'evaluate'?)"),
        ("fit", "fit: no such command (did you mean 'train'?)"),
        ("--epochs 3 train", "--epochs: no such option here (did you mean 'imgcls train --epochs'?)"),
    ],
)
def test_what_was_typed_wrong_is_one_line_and_exit_2(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*line.split())
    assert result.exit_code == Exit.USAGE
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bug_shows_its_traceback(run: Callable[..., Result], best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(info, "percent", broken)
    result = run("info", best)
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == Exit.FAILED


def test_running_out_of_device_memory_is_exit_8(
    run: Callable[..., Result], best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(info, "percent", full)
    result = run("info", best)
    assert result.exit_code == Exit.RESOURCES
    assert "--batch-size" in result.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    # `imgcls --help | true`, with the pipe closed before anything is written
    reading, writing = os.pipe()
    os.close(reading)
    process = imgcls("--help", stdout=writing)
    os.close(writing)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == Exit.BROKEN_PIPE
    assert errors == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_one_line_and_exit_7() -> None:
    with Path("/dev/full").open("wb") as full:
        process = imgcls("--help", stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == Exit.WRITE
    assert errors == b"error: standard output: cannot write: no space left on device; free space\n"


def test_a_library_that_meets_a_full_disk_is_not_taken_for_standard_output(
    run: Callable[..., Result], best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "/cache/fonts")

    monkeypatch.setattr(info, "percent", full)
    result = run("info", best)
    assert result.exit_code == Exit.WRITE
    assert result.stderr == "error: /cache/fonts: cannot write: no space left on device; free space\n"


def test_closed_streams_are_no_error(best: Path, colours: Path) -> None:
    line = f"exec {shlex.quote(sys.executable)} -m imgcls predict {colours}/test/red/00.png --ckpt {best} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 0


def test_class_names_cannot_steer_the_terminal(run: Callable[..., Result], tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/\x1b[31m"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").touch()
    result = run("train", "--data", tmp_path)
    assert result.exit_code == Exit.DATA
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_training_by_the_signal(colours: Path, tmp_path: Path, signum: signal.Signals) -> None:
    out = tmp_path / "run"
    options = ("--arch", "simple-cnn", "--epochs", 100000, "--workers", 1, "--out", out)
    process = imgcls("train", "--data", colours, *options, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signum
    assert b"Traceback" not in errors
    assert f"imgcls train --resume --out {out}".encode() in errors
    assert (out / "last.pt").exists()
    assert not list(out.glob(".imgcls-*"))


def test_the_folders_and_files_at_hand_are_offered(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset/train").mkdir(parents=True)
    (tmp_path / "best.pt").touch()
    for line, hint in {
        "train --data datset": "--data datset: no such folder or data set (did you mean 'dataset/'?)",
        "inspect-batch --data datset/tain": "(did you mean 'dataset/train/'?)",
        "predict a.jpg --ckpt bset.pt": "--ckpt bset.pt: no such file (did you mean 'best.pt'?)",
        "evaluate --data dataset --ckpt bset.pt": "bset.pt: no such file (did you mean 'best.pt'?)",
        "info .": ".: is a folder (did you mean 'best.pt'?)",
    }.items():
        result = run(*line.split())
        assert result.exit_code == Exit.USAGE
        assert hint in result.stderr
