"""Where results and talk go: results on stdout, everything else on stderr; tables on a terminal, plain when piped."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO

from imgcls.files import write_text

if TYPE_CHECKING:
    from imgcls.schema import Finding

# Of lone surrogates, \udc80 to \udcff are the bytes of a name that is not UTF-8, which are written as they came.
DANGEROUS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]")


COMMAND_LINES = ("command line", "resumed by")


def talk(text: str) -> None:
    """Say something to the user on stderr, on one line."""
    print(printable(text), file=sys.stderr, flush=True)


def columns_of(stream: TextIO) -> int | None:
    """Return how wide the terminal behind a stream is; None where there is none."""
    if not stream.isatty():
        return None
    with contextlib.suppress(OSError, ValueError):  # of no file, or COLUMNS is no number
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(stream.fileno()).columns) or 80
    return 80


def wrapped(text: str, columns: int, indent: int) -> str:
    """Break a text between words, so that what follows the first line stands under `indent`."""
    from rich.cells import cell_len

    first, *words = text.split(" ")
    lines, used = [first], cell_len(first)
    for word in words:
        # Nothing is won by leaving the first word of a line, such as a long path, for the next one.
        if word and used + 1 > indent and used + 1 + cell_len(word) > columns:
            lines.append(" " * indent + word)
            used = indent + cell_len(word)
        else:
            lines[-1] += f" {word}"
            used += 1 + cell_len(word)
    return "\n".join(lines)


def show_facts(facts: Iterable[tuple[str, str]], indent: int, to_stderr: bool = False) -> None:
    """Print names, and beside them what there is to say; on a terminal the words stay in their column.

    A command line stays one line, because somebody may want to copy it.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    columns = columns_of(stream)
    for name, text in facts:
        line = f"{name:<{indent}}{printable(text)}"
        whole = columns is None or name in COMMAND_LINES
        print(line if whole else wrapped(line, columns or 0, indent), file=stream, flush=True)


def warn(text: str) -> None:
    """Say a warning on stderr."""
    talk(f"warning: {text}")


def show_finding(finding: Finding) -> None:
    """Say what was found, and what to do about it."""
    talk(f"{finding.severity}: {finding}")


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], to_stderr: bool = False) -> None:
    """Print a table: drawn by rich on a terminal, tab-separated otherwise. All columns but the first are numbers.

    Where the terminal is too narrow for the numbers, each row becomes a sentence.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    if not stream.isatty():
        print(file=stream)
        for row in [header, *rows]:
            print("\t".join(printable(cell) for cell in row), file=stream)
        return
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    # Names may be folded, numbers may not; rich by itself would cut a number of several words.
    widths = [10, *(max(cell_len(printable(row[place])) for row in [header, *rows]) for place in range(1, len(header)))]
    for name, width in zip(header, widths, strict=True):
        justify: Literal["left", "right"] = "right" if table.columns else "left"
        table.add_column(Text(printable(name)), justify=justify, min_width=width, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if sum(widths) + 3 * len(widths) + 3 <= console.width:  # blanks and lines between the cells
        console.print(table)
        return
    console.print(Text(f"\n{title}", "italic"))
    for row in rows:
        cells = ", ".join(f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=True) if cell)
        console.print(Text(printable(f"  {row[0]}: {cells}")))


def write_json(value: Any, target: str) -> None:
    """Write a result as JSON: `-` is stdout, anything else a file, written whole or not at all."""
    text = json.dumps(value, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_text(target, text)


def printable(text: str) -> str:
    """Escape what could break a row or steer a terminal, and nothing else: a path that is printed must exist.

    That is control characters (C0, C1, DEL), separators of lines and paragraphs, embeddings, overrides and isolates
    of writing direction, and halves of characters that UTF-8 cannot write. Blanks of other widths, joiners and
    letters that this Python does not know yet stay.
    """
    return DANGEROUS.sub(lambda found: ascii(found[0])[1:-1], text)


def number(value: Any) -> str:
    """Format what was decided: a fraction with four digits that count."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def percent(share: float | None) -> str:
    """Format a fraction as a percentage with one decimal."""
    return "-" if share is None else f"{100 * share:.1f} %"


def interval(bounds: Sequence[float] | None) -> str:
    """Format a 95 % interval of fractions as percentages."""
    return "-" if bounds is None else f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f} %"
