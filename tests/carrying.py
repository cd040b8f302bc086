"""Which test fails when an option is ignored where it acts: said at the test itself, and collected from the files."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from imgcls.config import (
    BatchConfig,
    EvaluateConfig,
    ExportConfig,
    InspectConfig,
    PredictConfig,
    SampleConfig,
    TrainConfig,
)
from imgcls.settings import settings

Test = TypeVar("Test", bound=Callable[..., None])


def _names(config_type: type[Any]) -> set[str]:
    return {item.name for item, _ in settings(config_type)}


OPTIONS: dict[str, set[str]] = {
    "train": _names(TrainConfig),
    "inspect-batch": _names(InspectConfig) - _names(BatchConfig),  # the others are those of train
    "evaluate": _names(EvaluateConfig),
    "predict": _names(PredictConfig),
    "export": _names(ExportConfig),
    "sample-data": _names(SampleConfig),
}


def shows(command: str, *options: str) -> Callable[[Test], Test]:
    """Mark a test as the one that fails when these options of a command are ignored where they act."""
    unknown = {*options} - OPTIONS[command]
    assert not unknown, f"{command} has no {unknown}"
    return lambda test: test


def shown() -> dict[str, set[str]]:
    """Collect the options that the tests carry, by command."""
    found: dict[str, set[str]] = {command: set() for command in OPTIONS}
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "shows":
                    command, *options = (ast.literal_eval(argument) for argument in mark.args)
                    found[command] |= {*options}
    return found
