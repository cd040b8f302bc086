"""Where the words of a command go: results to stdout, talk to stderr, and JSON to where `--json` says.

With `--json -` the JSON has stdout for itself, and the results join the talk. Tables are drawn on a terminal and plain
when piped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO

from imgcls.cli.text import printable, wrapped
from imgcls.files import write_text
from imgcls.paths import check_result

if TYPE_CHECKING:
    from imgcls.schema import Finding

COMMAND_LINES = ("command line", "resumed by")

Facts = Iterable[tuple[str, str]]


class Console:
    """The only one who writes to stdout and stderr for a command.

    Args:
        json: what `--json` names: a file, "-" for stdout, or None.
    """

    def __init__(self, json: str | None = None) -> None:
        self._json = json

    @property
    def _results(self) -> TextIO:
        return sys.stderr if self._json == "-" else sys.stdout

    def check_json(self, data: str | None = None, kept: Iterable[str | None] = ()) -> None:
        """Prove, before a long computation, that the file of `--json` can be written.

        Args:
            data: the user's data folder, in which nothing is written.
            kept: files that are read, or written under another option; None: not given.

        Raises:
            UsageError, WriteError: as `paths.check_result`.
        """
        if self._json not in (None, "-"):
            check_result(str(self._json), "--json", data=data, kept=filter(None, kept), kind="JSON")

    def write_json(self, value: Any) -> None:
        """Write the result as JSON where `--json` says; a file is written whole or not at all."""
        text = json.dumps(value, indent=2) + "\n"
        if self._json == "-":
            self.write(text)
        elif self._json is not None:
            write_text(self._json, text)

    def write(self, text: str) -> None:
        """Write a part of the result to stdout as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Say a line of the result."""
        print(printable(text), file=self._results, flush=True)

    def talk(self, text: str) -> None:
        """Say something to the user on stderr, on one line."""
        print(printable(text), file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Say a warning on stderr."""
        self.talk(f"warning: {text}")

    def finding(self, finding: Finding) -> None:
        """Say what was found, and what to do about it, on stderr."""
        self.talk(f"{finding.severity}: {finding}")

    def facts(self, facts: Facts, indent: int) -> None:
        """Show names, and beside them what there is to say, as a part of the result."""
        _show_facts(facts, indent, self._results)

    def talk_facts(self, facts: Facts, indent: int) -> None:
        """Show names, and beside them what there is to say, on stderr."""
        _show_facts(facts, indent, sys.stderr)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table as a part of the result; all columns but the first are numbers."""
        stream = self._results
        if stream.isatty():
            _draw_table(title, header, rows, stream)
            return
        print(file=stream)
        for row in [header, *rows]:
            print("\t".join(printable(cell) for cell in row), file=stream)


def columns_of(stream: TextIO) -> int | None:
    """Return how wide the terminal behind a stream is; None where there is none."""
    if not stream.isatty():
        return None
    with contextlib.suppress(OSError, ValueError):  # of no file, or COLUMNS is no number
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(stream.fileno()).columns) or 80
    return 80


def _show_facts(facts: Facts, indent: int, stream: TextIO) -> None:
    """On a terminal the words stay in their column; a command line stays one line, because somebody may copy it."""
    columns = columns_of(stream)
    for name, text in facts:
        line = f"{name:<{indent}}{printable(text)}"
        whole = columns is None or name in COMMAND_LINES
        print(line if whole else wrapped(line, columns or 0, indent), file=stream, flush=True)


def _draw_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO) -> None:
    """Where the terminal is too narrow for the numbers, each row becomes a sentence."""
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console as Drawing
    from rich.table import Table
    from rich.text import Text

    drawing = Drawing(file=stream, highlight=False)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    # Names may be folded, numbers may not; rich by itself would cut a number of several words.
    numbers = range(1, len(header))
    widths = [10, *(max(cell_len(printable(row[column])) for row in [header, *rows]) for column in numbers)]
    for name, width in zip(header, widths, strict=True):
        justify: Literal["left", "right"] = "right" if table.columns else "left"
        table.add_column(Text(printable(name)), justify=justify, min_width=width, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if sum(widths) + 3 * len(widths) + 3 <= drawing.width:  # blanks and lines between the cells
        drawing.print(table)
        return
    drawing.print(Text(f"\n{title}", "italic"))
    for row in rows:
        cells = ", ".join(f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=True) if cell)
        drawing.print(Text(printable(f"  {row[0]}: {cells}")))
