"""Conversion of typed values to numbers, in place of typer's own.

typer imports pydantic for it, which took 0.2 of the 0.9 seconds of `predict` with an ONNX file.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand


class Plain:
    """What typer calls to convert the value of one option or argument."""

    def __init__(self, kind: type, least: float | None, most: float | None) -> None:
        self.kind, self.least, self.most = kind, least, most

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value; typer.BadParameter when it is no number, or out of bounds."""
        if value is None or self.kind in (str, bool):
            return value
        if self.kind is list:
            return list(value)
        try:
            number = self.kind(value)
        except ValueError as error:
            wanted = "a whole number" if self.kind is int else "a number"
            raise typer.BadParameter(f"{value} is not {wanted}", ctx, param) from error
        too_small = self.least is not None and not number >= self.least  # NaN is neither
        too_large = self.most is not None and not number <= self.most
        if too_small or too_large:
            bounds = f"at least {self.least}" if self.most is None else f"{self.least} to {self.most}"
            raise typer.BadParameter(f"{value} is not {bounds}", ctx, param)
        return number


class PlainValues:
    """Mixed into a typer group or command, gives its options and arguments the conversion of this module.

    A version of typer that converts in another way ignores it, and is slower.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all options and arguments, `--help` included."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            described = parameter.type_descriptor
            kind = getattr(described.annotation, "__origin__", described.annotation)
            if kind in (str, bool, int, float, list):
                parameter._runtime_param = Plain(kind, described.parameter_info.min, described.parameter_info.max)
        return parameters


class PlainCommand(PlainValues, TyperCommand):
    """A command whose values are converted plainly."""
