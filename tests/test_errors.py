"""Exit codes and one-line errors."""

from __future__ import annotations

import pytest

from imgcls import errors
from imgcls.errors import Exit, ImgclsError, Interrupted, NonFiniteError, missing_extra, nearest


def test_the_exit_codes_are_the_documented_ones() -> None:
    assert [int(code) for code in Exit] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 75, 130, 141, 143]
    assert all(code.meaning for code in Exit)
    assert int(Exit.DATA) == 3


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("UsageError", 2), ("DataError", 3), ("ImageError", 3), ("CheckpointError", 4), ("NonFiniteError", 4)),
        *(("DivergedError", 6), ("WriteError", 7), ("ResourceError", 8), ("ImgclsError", 1)),
    ],
)
def test_each_error_knows_the_code_the_process_ends_with(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_an_interruption_is_not_swallowed_on_the_way_up() -> None:
    with pytest.raises(Interrupted) as caught:
        try:
            raise Interrupted(15)
        except Exception:  # what a parser or a back end might do
            pytest.fail("swallowed")
    assert caught.value.signum == 15
    assert not issubclass(Interrupted, ImgclsError)


def test_nearest_offers_the_closest_word_or_nothing() -> None:
    assert nearest("ResNet81", ["resnet18", "vgg11"]) == " (did you mean 'resnet18'?)"
    assert nearest("zzzzzz", ["resnet18", "vgg11"]) == ""


def test_a_missing_extra_is_one_sentence_with_the_line_to_type() -> None:
    assert str(missing_extra("scipy", "datasets")) == "scipy is not installed: type pip install 'imgcls[datasets]'"


def test_logits_that_are_no_numbers_have_one_sentence() -> None:
    sentence = "the network gives NaN or infinite logits; use an earlier checkpoint"
    assert (str(NonFiniteError()), str(NonFiniteError("val"))) == (sentence, f"val: {sentence}")
