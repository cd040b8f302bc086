"""The README is run and held against the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from imgcls import config
from imgcls.cli.app import app
from imgcls.errors import Exit
from imgcls.registry import DATASETS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("$ ")
]


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one epoch of the smallest network in place of five of resnet18."""
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 7
    for command in COMMANDS:
        shorter = command.replace("--epochs 5", "--epochs 1").replace("resnet18", "simple-cnn")
        result = CliRunner().invoke(app, shlex.split(shorter)[1:])
        assert result.exit_code == 0, (command, result.output)
    python = re.search(r"```python\n(.*?)```", README, re.S)
    assert python is not None
    exec(compile(python[1], "README.md", "exec"), {})


def test_every_command_and_option_is_mentioned() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for name in group.commands:
        assert f"imgcls {name}" in README
    for item, _ in config.settings(config.TrainConfig):
        assert f"`{config.flag(item)}`" in README


def test_the_exit_codes_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", README, re.M))
    assert rows == {str(int(code)): code.meaning for code in Exit}


def test_every_data_set_is_named() -> None:
    for name in DATASETS:
        assert f"`{name}`" in README


def test_the_file_tree_is_the_real_one() -> None:
    tree = README[README.index("    imgcls/\n") : README.index("    tests/  ")]
    named = set(re.findall(r"^      (\w+(?:\.py|/))", tree, re.M))
    package = Path(__file__).parents[1] / "imgcls"
    real = {f"{path.name}/" if path.is_dir() else path.name for path in package.iterdir() if path.name != "py.typed"}
    assert named == {name for name in real if not name.startswith("__")}
