"""Typed values become numbers without pydantic, and what is none is refused in one line."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner, Result

from imgcls.cli.values import Plain, PlainCommand
from imgcls.errors import Exit

Run = Callable[..., Result]


def converted(kind: type, value: Any, least: float | None = None, most: float | None = None) -> Any:
    return Plain(kind, least, most).coerce(value, None, None)


@pytest.mark.parametrize(
    ("kind", "typed", "value"),
    [
        (int, "12", 12),
        (int, "-3", -3),
        (int, 7, 7),  # a default
        (float, "0.25", 0.25),
        (float, "1e-3", 0.001),
        (float, "3", 3.0),
        (float, "-inf", -math.inf),
        (str, "12", "12"),
        (str, "", ""),
        (bool, True, True),
        (bool, False, False),
        (list, ("a", "b"), ["a", "b"]),
        (list, (), []),
        *((kind, None, None) for kind in (int, float, str, bool, list)),  # not typed
    ],
)
def test_a_value_gets_the_type_of_its_option(kind: type, typed: Any, value: Any) -> None:
    found = converted(kind, typed)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("typed", ["", " ", "many", "1.5", "1e3", "0x10", "nan", "inf", "9" * 5000])
def test_what_is_no_whole_number_is_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a whole number"):
        converted(int, typed)


@pytest.mark.parametrize("typed", ["", "half", "1,5", "50%"])
def test_what_is_no_number_is_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a number"):
        converted(float, typed)


@pytest.mark.parametrize("typed", ["0", "1", "0.5", "-0.0"])
def test_the_bounds_are_among_the_values(typed: str) -> None:
    assert converted(float, typed, 0, 1) == float(typed)


@pytest.mark.parametrize("typed", ["-0.001", "1.001", "inf", "-inf", "nan"])
def test_what_is_out_of_bounds_is_refused_nan_too(typed: str) -> None:
    with pytest.raises(typer.BadParameter, match=rf"^{typed} is not 0 to 1$"):
        converted(float, typed, 0, 1)


def test_one_bound_alone() -> None:
    for least, most in ((0, None), (None, 1)):
        assert converted(float, "0.5", least, most) == 0.5
        with pytest.raises(typer.BadParameter):
            converted(float, "nan", least, most)
    assert converted(int, "1", 1) == 1
    assert converted(int, "1000000", 1) == 1000000
    with pytest.raises(typer.BadParameter, match=r"^0 is not at least 1$"):
        converted(int, "0", 1)


def test_nan_is_a_number_where_no_bounds_are() -> None:
    assert math.isnan(converted(float, "nan"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("predict a.jpg --top-k 0", "Invalid value for '--top-k': 0 is not at least 1; type imgcls predict --help"),
        ("predict a.jpg --top-k 1.5", "'--top-k': 1.5 is not a whole number;"),
        ("predict a.jpg --batch-size -2", "'--batch-size': -2 is not at least 1;"),
        ("predict a.jpg --workers few", "'--workers': few is not a whole number;"),
        ("predict a.jpg --workers -1", "'--workers': -1 is not at least 0;"),
        ("predict a.jpg --threshold nan", "'--threshold': nan is not 0 to 1;"),
        ("predict a.jpg --threshold 50%", "'--threshold': 50% is not a number;"),
        ("evaluate --data x --limit 0", "'--limit': 0 is not at least 1;"),
        ("sample-data out --seed -1", "'--seed': -1 is not at least 0;"),
    ],
)
def test_a_wrong_number_is_one_line_and_exit_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*line.split())
    assert result.exit_code == Exit.USAGE
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_command_receives_what_its_annotations_say() -> None:
    app = typer.Typer()
    received: dict[str, Any] = {}

    @app.command(cls=PlainCommand)
    def command(
        names: Annotated[list[str], typer.Argument()],
        count: int = 3,
        share: Annotated[float | None, typer.Option(min=0, max=1)] = None,
        tag: Annotated[list[str] | None, typer.Option()] = None,
        label: str = "none",
        fast: bool = False,
    ) -> None:
        received.update(names=names, count=count, share=share, tag=tag, label=label, fast=fast)

    def typed(line: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, line.split())
        assert result.exit_code == 0, result.output
        return received

    assert typed("1 b") == {
        "names": ["1", "b"],
        "count": 3,
        "share": None,
        "tag": None,
        "label": "none",
        "fast": False,
    }
    assert typed("a --count 5 --share 1 --tag x --tag 2 --label 7 --fast") == {
        "names": ["a"],
        "count": 5,
        "share": 1.0,
        "tag": ["x", "2"],
        "label": "7",
        "fast": True,
    }


def test_numbers_are_converted_without_pydantic() -> None:
    """`predict` with an ONNX file is measured in tenths of a second; tests/inference/test_onnx.py shows a whole one."""
    line = ["predict", "a.jpg", "--top-k", "2", "--threshold", "0.5", "--workers", "1", "--format", "none"]
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
    assert done.stderr.startswith("error: --format none: not known"), "all values were converted"
