"""Lines are parsed without pydantic, and what is wrong in one is said in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner, Result

from imgcls.cli.parser import Command
from imgcls.errors import Exit

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("predict a.jpg --top-k 0", "--top-k 0: must be 1 or more"),
        ("predict a.jpg --top-k 1.5", "--top-k 1.5: needs a whole number"),
        ("predict a.jpg --batch-size -2", "--batch-size -2: must be 1 or more"),
        ("predict a.jpg --workers few", "--workers few: needs a whole number or auto"),
        ("predict a.jpg --workers -1", "--workers -1: must be 0 or more"),
        ("predict a.jpg --threshold nan", "--threshold nan: must be 0 to 1"),
        ("predict a.jpg --threshold 50%", "--threshold 50%: needs a number"),
        ("evaluate --data x --limit 0", "--limit 0: must be 1 or more"),
        ("sample-data out --seed -1", "--seed -1: must be 0 or more"),
    ],
)
def test_a_wrong_number_is_one_line_and_exit_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*line.split())
    assert result.exit_code == Exit.USAGE
    assert result.stdout == ""
    assert result.stderr == f"error: {problem}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_command_receives_what_its_annotations_say() -> None:
    app = typer.Typer()
    received: dict[str, Any] = {}

    @app.command(cls=Command)
    def command(
        names: Annotated[list[str], typer.Argument()],
        share: Annotated[str | None, typer.Option()] = None,
        tag: Annotated[list[str] | None, typer.Option()] = None,
        label: str = "none",
        fast: bool = False,
    ) -> None:
        received.update(names=names, share=share, tag=tag, label=label, fast=fast)

    def typed(line: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, line.split())
        assert result.exit_code == 0, result.output
        return received

    assert typed("1 b") == {"names": ["1", "b"], "share": None, "tag": None, "label": "none", "fast": False}
    assert typed("a --share 1 --tag x --tag 2 --label 7 --fast") == {
        "names": ["a"],
        "share": "1",
        "tag": ["x", "2"],
        "label": "7",
        "fast": True,
    }


def test_numbers_are_converted_without_pydantic() -> None:
    """`predict` with an ONNX file is measured in tenths of a second; tests/inference/test_onnx.py shows a whole one."""
    line = ["predict", "a.jpg", "--top-k", "2", "--threshold", "0.5", "--workers", "1", "--ckpt", "none.pt"]
    code = f"""
import sys
from imgcls.cli.app import app
try:
    app({line!r}, prog_name="imgcls")
except SystemExit as end:
    assert end.code == 2, end.code
assert "pydantic" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.startswith("error: --ckpt none.pt: no such file"), "all values were converted"
