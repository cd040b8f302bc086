"""Tables and lines: tab-separated when piped, drawn on a terminal, and never broken by a name or a narrow window."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imgcls.cli.console import Console
from imgcls.cli.text import interval, number, percent, printable, wrapped
from imgcls.errors import UsageError
from imgcls.schema import Finding

HEADER = ["class", "images", "accuracy", "95 %", "precision", "recall", "F1"]
ROWS = [
    ["blue", "12", "66.7 %", "39.1-86.2 %", "0.668", "0.123", "0.571"],
    ["a class with a name of some length", "1234567", "100.0 %", "99.9-100.0 %", "0.998", "0.456", "0.789"],
    ["macro avg", "1234579", "", "", "0.833", "0.290", "0.680"],
]
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
COLOURS = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")

Draw = Callable[..., str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Show the table on a terminal of so many columns; returns what arrives there."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def draw(columns: int, rows: list[list[str]] = ROWS, header: list[str] = HEADER, to_stderr: bool = False) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr" if to_stderr else "stdout", stream)
        Console("-" if to_stderr else None).table("per class", header, rows)
        return stream.getvalue()

    return draw


def words(text: str) -> set[str]:
    return set(re.split(r"[\s,:]+", ESCAPES.sub("", text)))


# Piped ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_stderr", [False, True])
def test_a_piped_table_is_an_empty_line_and_tab_separated_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, to_stderr: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # of the terminal that is not there
    Console("-" if to_stderr else None).table("per class", HEADER, ROWS)
    out, err = capsys.readouterr()
    rows = "".join("\t".join(row) + "\n" for row in [HEADER, *ROWS])
    assert (out, err) == (("", "\n" + rows) if to_stderr else ("\n" + rows, ""))


# On a terminal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [*range(20, 110, 3), 200])
def test_every_figure_is_whole_at_any_width(drawn: Draw, columns: int) -> None:
    text = drawn(columns)
    figures = {word for row in ROWS for cell in row[1:] for word in cell.split()}
    assert figures <= words(text)
    assert {word for row in ROWS for word in row[0].split()} <= words(text)
    assert max(map(len, ESCAPES.sub("", text).splitlines())) <= columns


def test_names_of_several_words_cost_no_figure(drawn: Draw) -> None:
    """As in a confusion matrix, and in the table of what is most confused."""
    dogs = ["golden retriever", "border collie", "irish setter", "great dane"]
    counts = [[dog, *(str(1000 * row + 100 + column) for column in range(4))] for row, dog in enumerate(dogs)]
    pairs = [["golden retriever", "border collie", "13", "10.8 %"], ["great dane", "irish setter", "9", "7.5 %"]]
    for header, rows in ((["true", *dogs], counts), (["class", "taken for", "images", "share of class"], pairs)):
        cells = {word for row in rows for cell in row for word in cell.split()}
        for columns in range(30, 100):
            assert cells <= words(drawn(columns, rows, header)), f"lost at {columns} columns"


def test_a_wide_terminal_gets_a_table(drawn: Draw) -> None:
    title, _, header, rule, first, *_ = (line.rstrip() for line in ESCAPES.sub("", drawn(100)).splitlines())
    assert title == "per class"
    assert header.split() == ["class", "images", "accuracy", "95", "%", "precision", "recall", "F1"]
    assert set(rule.strip()) == {"─"}
    assert first.split() == ["blue", "12", "66.7", "%", "39.1-86.2", "%", "0.668", "0.123", "0.571"]
    assert first.endswith("0.571")
    assert header.index("images") + len("images") == first.index("12") + 2, "numbers are right-aligned"


def test_on_a_narrow_one_each_row_becomes_a_sentence(drawn: Draw) -> None:
    text = ESCAPES.sub("", drawn(40))
    assert "─" not in text
    sentences = " ".join(text.split())
    assert sentences == (
        "per class "
        "blue: images 12, accuracy 66.7 %, 95 % 39.1-86.2 %, precision 0.668, recall 0.123, F1 0.571 "
        "a class with a name of some length: images 1234567, accuracy 100.0 %, 95 % 99.9-100.0 %, precision 0.998, "
        "recall 0.456, F1 0.789 "
        "macro avg: images 1234579, precision 0.833, recall 0.290, F1 0.680"
    )
    assert [line for line in text.splitlines() if line.startswith("  ")] == [
        "  blue: images 12, accuracy 66.7 %, 95 %"[:40].rstrip(),
        "  a class with a name of some length: ",
        "  macro avg: images 1234579, precision ",
    ]


@pytest.mark.parametrize("columns", [100, 40])
def test_no_color_means_no_colours(drawn: Draw, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOURS.search(drawn(columns))


def test_the_table_for_stderr_is_drawn_there(drawn: Draw, capsys: pytest.CaptureFixture[str]) -> None:
    assert "─" in drawn(100, to_stderr=True)
    assert capsys.readouterr().out == ""


# Names ---------------------------------------------------------------------------------------------------------------

HOSTILE = "a\tb\nc\x1b[31md\x07\u202ee"
SAFE = r"a\tb\nc\x1b[31md\x07\u202ee"


def test_control_characters_are_escaped_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table("t", ["class", HOSTILE], [[HOSTILE, "1"]])
    assert capsys.readouterr().out == f"\nclass\t{SAFE}\n{SAFE}\t1\n"


@pytest.mark.parametrize("columns", [100, 40])
def test_control_characters_are_escaped_on_a_terminal(drawn: Draw, columns: int) -> None:
    text = drawn(columns, [[HOSTILE, "1", "2"]], ["class", HOSTILE, "a column to fill a narrow window"])
    assert ("─" in text) == (columns == 100)
    assert SAFE in ESCAPES.sub("", text)
    assert not {"\t", "\x07", "\u202e"} & set(text)
    assert "\x1b[31m" not in text


@pytest.mark.parametrize("columns", [100, 30])
@pytest.mark.parametrize("name", ["[red]ant[/red]", ":bee:", "[/]", "$x^2$", "蜜蜂", "🐜"])
def test_a_name_is_no_markup(drawn: Draw, columns: int, name: str) -> None:
    text = drawn(columns, [[name, "12", "0.5"]], ["class", name, "a-column-of-some-width"])
    assert ("─" in text) == (columns == 100)
    assert name in text
    assert {"12", "0.5"} <= words(text)


def test_talk_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Console().talk(HOSTILE)
    Console().warn(HOSTILE)
    Console().finding(Finding("code", "note", "two images are empty", f"look at {HOSTILE}"))
    assert capsys.readouterr() == ("", f"{SAFE}\nwarning: {SAFE}\nnote: two images are empty; look at {SAFE}\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Käfer 金魚", "Käfer 金魚"),
        (HOSTILE, SAFE),
        # Names of macOS screenshots, Japanese, Persian, emoji, Hebrew marks, and letters younger than this Python.
        *(
            (name, name)
            for name in ("4.42\u202fPM", "no\xa0break", "\u3000", "\u0645\u200c\u062e", "\U0001f469\u200d\u2695")
        ),
        *((name, name) for name in ("\u200fa\u200e", "soft\xadhyphen", "\ue000", "\U000323b0")),
        ("a\x00\x1b\x7f\x85\x9bb", r"a\x00\x1b\x7f\x85\x9bb"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\u202a\u202b\u202c\u202d\u202e", r"\u202a\u202b\u202c\u202d\u202e"),
        ("\u2066\u2067\u2068\u2069", r"\u2066\u2067\u2068\u2069"),
        ("\ud800", r"\ud800"),
        ("caf\udce9", "caf\udce9"),  # a byte that is not UTF-8: written as it came
        ("back\\slash", "back\\slash"),
        ("", ""),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


# Numbers and JSON ----------------------------------------------------------------------------------------------------


def test_shares_are_percentages_with_one_decimal() -> None:
    assert [percent(share) for share in (0, 0.12345, 1, None)] == ["0.0 %", "12.3 %", "100.0 %", "-"]
    assert [interval(pair) for pair in ((0.1, 0.98765), (0, 1), None)] == ["10.0-98.8 %", "0.0-100.0 %", "-"]


def test_results_make_room_for_json_on_stdout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What was said is the same, in the same order; only where it goes differs."""
    said = []
    for json_goes in (None, str(tmp_path / "a.json"), "-"):
        console = Console(json_goes)
        console.talk("talk")
        console.say(f"a result of {HOSTILE}")
        console.facts([("name", "fact")], 6)
        console.table("t", ["class"], [["ant"]])
        console.talk_facts([("device", "cpu")], 8)
        said.append(capsys.readouterr())
    results = f"a result of {SAFE}\nname  fact\n\nclass\nant\n"
    assert said[0] == said[1] == (results, "talk\ndevice  cpu\n")
    assert said[2] == ("", f"talk\n{results}device  cpu\n")


def test_a_file_that_cannot_take_json_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    inside, rows = tmp_path / "data/x.json", tmp_path / "rows.json"
    for json_goes, kept in ((None, []), ("-", []), (str(rows), [None, "best.pt"])):
        Console(json_goes).check_json(str(tmp_path / "data"), kept)
    with pytest.raises(UsageError, match="is inside --data"):
        Console(str(inside)).check_json(str(tmp_path / "data"))
    with pytest.raises(UsageError, match="itself; name another file"):
        Console(str(rows)).check_json(kept=[None, str(rows)])


def test_json_goes_to_stdout_or_to_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    value = {"classes": ["蜜蜂", "caf\udce9"], "auc": None}
    Console("-").write_json(value)
    Console(str(tmp_path / "report.json")).write_json(value)
    Console().write_json(value)
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (value, "")
    assert (tmp_path / "report.json").read_text() == out


def test_lines_are_broken_between_words_and_go_on_in_their_column() -> None:
    text = "name   " + " ".join(["word"] * 12)
    broken = wrapped(text, 30, 7).splitlines()
    assert broken[0] == "name   word word word word"
    assert all(len(line) <= 30 and line.startswith("       word") for line in broken[1:])
    assert " ".join(" ".join(broken).split()) == " ".join(text.split())
    assert wrapped("name   蜜蜂 蜜蜂 蜜蜂", 14, 7) == "name   蜜蜂\n       蜜蜂\n       蜜蜂", "cells, not letters"
    assert wrapped("       two words", 12, 7).splitlines() == ["       two", "       words"], "without a name"
    path = "/a/path/longer/than/the/window"
    assert wrapped(f"name   in {path} it is", 20, 7).splitlines()[1] == f"       {path}", "no path is broken"
    assert wrapped(f"name   {path} it", 20, 7).splitlines() == [f"name   {path}", "       it"]


def test_a_command_line_is_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    line = "imgcls train --data dataset --arch resnet18 --epochs 20"
    Console().facts([("command line", line), ("settings", line)], 15)
    first, *others = stream.getvalue().splitlines()
    assert first == f"command line   {line}"
    assert len(others) > 1


def test_a_fraction_has_four_digits_that_count() -> None:
    shown = [number(value) for value in (0.17500000000000002, 3e-4, 12.8, 2, "auto", None)]
    assert shown == ["0.175", "0.0003", "12.8", "2", "auto", "None"]
