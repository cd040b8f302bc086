"""What is stated in a field becomes flag, help, check and JSON; shown with a small config of no command."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from imgcls.errors import UsageError
from imgcls.settings import check, flag, from_dict, help_text, metavar, parse, setting, settings, to_dict


@dataclass(frozen=True, kw_only=True)
class Small:
    """One setting of each kind."""

    images: str = setting(MISSING, "Which images.", metavar="FOLDER")
    count: int = setting(3, "How many.", low=1)
    share: float | None = setting(None, "Which share.", low=0, high=1, unset="all", metavar="P")
    workers: int | None = setting(None, "Processes.", low=0, auto="the CPUs")
    rule: Literal["cut", "pad"] = setting("cut", "Which rule.")
    arch: str = setting("one", "Which network.", known={"one": "a:b", "two": "c:d"})
    many: str = setting("0", "Which of many.", known={str(number): "" for number in range(9)})
    last: int | Literal["all"] = setting(0, "How many last.", low=0)
    flip: bool | None = setting(None, "Mirror.", auto="yes")
    fast: bool = setting(False, "Fast.")

    def __post_init__(self) -> None:
        check(self)


ITEMS = {item.name: (item, hint) for item, hint in settings(Small)}


def refused(**given: Any) -> str:
    with pytest.raises(UsageError) as caught:
        Small(**{"images": "x"} | given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "called", "text"),
    [
        ("images", "FOLDER", "Which images."),
        ("count", "N", "How many. [3; 1 or more]"),
        ("share", "P", "Which share. [all; 0 to 1]"),
        ("workers", "N", "Processes. [auto: the CPUs; 0 or more]"),
        ("rule", "cut|pad", "Which rule. [cut]"),
        ("arch", "one|two", "Which network. [one]"),
        ("many", "TEXT", "Which of many. [0] [one of: 0, 1, 2, 3, 4, 5, 6, 7, 8]"),
        ("last", "N|all", "How many last. [0; 0 or more]"),
        ("flip", "TEXT", "Mirror. [auto: yes]"),
        ("fast", "TEXT", "Fast."),
    ],
)
def test_the_help_says_what_there_is_to_know(name: str, called: str, text: str) -> None:
    assert flag(ITEMS[name][0]) == f"--{name}"
    assert help_text(*ITEMS[name]) == text
    assert name in ("flip", "fast") or metavar(*ITEMS[name]) == called


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("count", "12", 12),
        ("count", "-3", -3),
        ("share", "0.25", 0.25),
        ("share", "1e-3", 0.001),
        ("share", "3", 3.0),
        ("share", "-inf", -math.inf),
        ("images", "12", "12"),
        ("images", "", ""),
        ("images", "auto", "auto"),
        ("workers", "auto", None),
        ("last", "all", "all"),
    ],
)
def test_a_value_gets_the_type_of_its_setting(name: str, typed: str, value: Any) -> None:
    found = parse(*ITEMS[name], typed)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("typed", ["", " ", "many", "1.5", "1e3", "0x10", "nan", "inf", "9" * 5000])
def test_what_is_no_whole_number_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match=r"^--count .*: needs a whole number$"):
        parse(*ITEMS["count"], typed)


@pytest.mark.parametrize("typed", ["", "half", "1,5", "50%", "auto"])
def test_what_is_no_number_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match=r"^--share .*: needs a number$"):
        parse(*ITEMS["share"], typed)


@pytest.mark.parametrize("share", [0, 1, 0.5, -0.0, None])
def test_the_bounds_are_among_the_values(share: float | None) -> None:
    assert Small(images="x", share=share).share == share
    assert Small(images="x", count=1000000).count == 1000000


@pytest.mark.parametrize("share", [-0.001, 1.001, math.inf, -math.inf, math.nan])
def test_what_is_out_of_bounds_is_refused_nan_too(share: float) -> None:
    assert refused(share=share) == f"--share {share}: must be 0 to 1"


def test_words_are_refused_in_one_sentence() -> None:
    assert refused(rule="cutt") == "--rule cutt: not known (did you mean 'cut'?); choose from: cut, pad"
    assert refused(arch="x") == "--arch x: not known; choose from: one, two"
    assert refused(many="x") == "--many x: not known; choose from: the list in imgcls train --help"
    assert refused(count=0) == "--count 0: must be 1 or more"
    assert refused(last="some") == "--last some: needs a whole number or all"


def test_what_has_no_default_must_be_given_and_a_path_becomes_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images"):
        from_dict(Small, {})
    assert from_dict(Small, {"images": tmp_path}).images == str(tmp_path)


def test_auto_is_a_word_only_where_none_is_called_so() -> None:
    asked = from_dict(Small, {"images": "auto", "workers": "auto", "flip": "auto"})
    assert (asked.images, asked.workers, asked.flip) == ("auto", None, None)
    assert from_dict(Small, {**to_dict(asked), "share": None}) == asked
