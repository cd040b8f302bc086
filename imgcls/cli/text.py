"""Words and numbers as they are shown: safe for a terminal, broken between words, with as many digits as count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# Of lone surrogates, \udc80 to \udcff are the bytes of a name that is not UTF-8, which are written as they came.
DANGEROUS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]")


def printable(text: str) -> str:
    """Escape what could break a row or steer a terminal, and nothing else: a path that is printed must exist.

    That is control characters (C0, C1, DEL), separators of lines and paragraphs, embeddings, overrides and isolates
    of writing direction, and halves of characters that UTF-8 cannot write. Blanks of other widths, joiners and
    letters that this Python does not know yet stay.
    """
    return DANGEROUS.sub(lambda found: ascii(found[0])[1:-1], text)


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


def number(value: Any) -> str:
    """Format what was decided: a fraction with four digits that count."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def percent(share: float | None) -> str:
    """Format a fraction as a percentage with one decimal."""
    return "-" if share is None else f"{100 * share:.1f} %"


def interval(bounds: Sequence[float] | None) -> str:
    """Format a 95 % interval of fractions as percentages."""
    return "-" if bounds is None else f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f} %"
