"""Tab completion, by the protocol that the shells speak."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from imgcls.cli.app import app
from imgcls.registry import DATASETS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("dataset/train", "dataset/val", "dataset/.cache", "runs", ".hidden", "pictures"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("cifar.txt", "best.pt"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("dataset")
    monkeypatch.chdir(tmp_path)


def completed(line: str) -> list[str]:
    """Return what is offered for the last word of a line."""
    environment = {
        "_IMGCLS_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    result = CliRunner().invoke(app, [], prog_name="imgcls", env=environment)
    assert result.exit_code == 0
    return result.output.split()


@pytest.mark.parametrize("command", ["train", "evaluate", "export", "inspect-batch"])
def test_data_is_a_data_set_or_a_folder(command: str) -> None:
    assert completed(f"imgcls {command} --data ") == [*DATASETS, "dataset/", "link/", "pictures/", "runs/"]
    assert completed(f"imgcls {command} --data c") == ["cifar10", "cifar100"]
    assert completed(f"imgcls {command} --data dataset/") == ["dataset/train/", "dataset/val/"]
    assert completed(f"imgcls {command} --data ./p") == ["./pictures/"]
    assert completed(f"imgcls {command} --data .h") == [".hidden/"]
    assert completed(f"imgcls {command} --data none/x") == []


def test_one_folder_alone_is_offered_with_those_in_it() -> None:
    """Else the shell would add a blank after it."""
    assert completed("imgcls train --data d") == ["dataset/", "dataset/train/", "dataset/val/"]


def test_names_are_completed_and_files_are_left_to_the_shell() -> None:
    assert completed("imgcls train --arch resnet1") == ["resnet18", "resnet101", "resnet152"]
    assert completed("imgcls evaluate --split v") == ["val"]
    for line in ("predict --ckpt b", "evaluate --ckpt ", "predict be", "train --config c"):
        assert completed(f"imgcls {line}") == []


def test_completion_is_quick() -> None:
    if "torch" not in sys.modules:
        completed("imgcls train --data ")
        assert "torch" not in sys.modules
