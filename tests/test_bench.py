"""The benchmark's table, on made-up numbers; what is measured is in tests/bench and asserted nowhere."""

from __future__ import annotations

import itertools

import pytest
from table import Row, alternate, figures, markdown


def test_the_ratio_is_the_median_over_pairs_and_not_of_medians() -> None:
    row = Row("S1", "batches", "img/s", [100.0, 10.0, 3000.0], [10.0, 5.0, 200.0], ">= 10")
    assert row.judged() == [10, 2, 15]
    assert row.cells() == ("S1", "batches", "100 img/s", "10 img/s", "10", "2-15", ">= 10", "yes")


@pytest.mark.parametrize(
    ("goal", "verdict"), [(">= 2", "yes"), (">= 2.1", "no"), ("<= 2", "yes"), ("<= 1.9", "no"), (None, "-")]
)
def test_the_verdict_compares_the_median_with_the_goal(goal: str | None, verdict: str) -> None:
    assert Row("S5", "process", "s", [2.0, 4.0, 9.0], [1.0, 2.0, 3.0], goal).verdict == verdict


def test_a_goal_can_be_for_our_figure_alone() -> None:
    row = Row("S9", "memory", "MB", [1400.0, 1600.0, 1450.0], None, "<= 1500")
    assert row.cells() == ("S9", "memory", "1,450 MB", "-", "-", "1,400-1,600", "<= 1500", "yes")


def test_blocks_run_in_turn_after_a_round_that_does_not_count() -> None:
    turns: list[str] = []
    ours, theirs = itertools.count(0, 10), itertools.count(0, 5)

    def block(name: str, numbers: itertools.count[int]) -> tuple[float, float]:
        turns.append(name)
        return next(numbers), 7

    found = alternate({"ours": lambda: block("ours", ours), "theirs": lambda: block("theirs", theirs)}, 2)
    assert turns == ["ours", "theirs"] * 3
    assert figures(found["ours"]) == [10, 20]
    assert figures(found["theirs"], lambda value: value / 5) == [1, 2]
    assert figures(found["theirs"], column=1) == [7, 7]


def test_what_fails_or_is_not_there_says_so_in_its_row_and_the_others_go_on() -> None:
    turns = iter([1.0])

    def broken() -> tuple[float]:
        return (next(turns),)

    def fails() -> tuple[float]:
        raise ValueError("a | b")

    found = alternate({"ours": lambda: (3.0,), "fails": fails, "later": broken, "dali": "not installed"}, 3, warm=False)
    rows = [Row("S2", name, "s", figures(found["ours"]), figures(found[name]), ">= 1") for name in found]
    assert [row.verdict for row in rows] == ["yes", "failed: a / b", "failed: StopIteration", "not installed"]
    assert markdown(rows[1:2]).splitlines() == [
        "| target | what | ours | theirs | ratio | spread | goal | met |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| S2 | fails | 3 s | - | - | - | >= 1 | failed: a / b |",
    ]
