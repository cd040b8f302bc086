"""Classes are matched by name: a label's number is never trusted across splits."""

from __future__ import annotations

import numpy as np
import pytest

from imgcls.data.images import FileImages
from imgcls.data.listing import Listing, match
from imgcls.errors import DataError


def listing(classes: str, labels: list[int]) -> Listing:
    """A listing of names only; "ant bee" are two classes."""
    images = FileImages.of("nowhere", [f"{number}.png" for number in range(len(labels))])
    return Listing("set/val", images, np.array(labels, dtype=np.int64), tuple(classes.split()))


def test_labels_are_mapped_by_name_when_the_first_class_is_missing() -> None:
    """By number, every answer would be off by one: 36.1 % became 5.7 % in a rival."""
    matched = match(listing("bee cat", [0, 1, 1]), ("ant", "bee", "cat"))
    assert matched.labels.tolist() == [1, 2, 2]
    assert matched.classes == ("ant", "bee", "cat")
    assert matched.counts().tolist() == [0, 1, 2]
    (finding,) = matched.findings
    assert (finding.code, finding.severity) == ("class-without-images", "warning")
    assert "no images of class 'ant'" in finding.message


def test_labels_are_mapped_by_name_in_another_order() -> None:
    assert match(listing("cat ant bee", [0, 1, 2]), ("ant", "bee", "cat")).labels.tolist() == [2, 0, 1]


def test_the_same_classes_are_left_as_they_are() -> None:
    same = listing("ant bee", [0, 1, 1])
    matched = match(same, ("ant", "bee"))
    assert matched.labels.tolist() == [0, 1, 1]
    assert matched.findings == ()


def test_an_unknown_class_is_refused_with_the_names() -> None:
    with pytest.raises(DataError) as caught:
        match(listing("ant bees wasp", [0, 1, 2]), ("ant", "bee"))
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "set/val: unknown classes 'bees', 'wasp' (did you mean 'bee'?); the model knows 'ant', 'bee': "
        "remove or rename the folder"
    )


def test_a_case_twin_is_refused_with_both_spellings() -> None:
    with pytest.raises(DataError, match="class 'Ant' is written 'ant' in the training data: rename one"):
        match(listing("Ant bee", [0, 1]), ("ant", "bee"))


def test_an_unknown_class_without_images_does_no_harm() -> None:
    matched = match(listing("ant bee wasp", [0, 1]), ("ant", "bee"))
    assert matched.labels.tolist() == [0, 1]


def test_long_lists_of_classes_are_cut() -> None:
    names = tuple(f"class{number}" for number in range(30))
    with pytest.raises(DataError, match=r"the model knows 'class0', .*'class9' and 20 more"):
        match(listing("wasp", [0]), names)


def test_the_unicode_form_of_a_class_does_not_count() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    matched = match(listing(f"{decomposed} tea", [0, 1, 1]), ("tea", composed))
    assert matched.labels.tolist() == [1, 0, 0]
    assert matched.classes == ("tea", composed)
    assert matched.findings == ()
    both = match(listing(f"{composed} {decomposed}", [0, 1]), (decomposed, composed))  # an older checkpoint's
    assert both.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="class 'CAFE\u0301' is written 'caf\u00e9' in the training data"):
        match(listing("CAFE\u0301", [0]), (composed, "tea"))


def test_the_fingerprint_holds_labels_that_the_names_do_not_tell() -> None:
    found = listing("ant bee", [0, 1, 1])
    assert found.fingerprint().startswith(f"{found.images.fingerprint()}.")
    assert found.take(np.array([2, 0, 1])).fingerprint() == found.fingerprint(), "in whatever order"
    corrected, renamed = listing("ant bee", [0, 1, 0]), listing("ant wasp", [0, 1, 1])
    assert len({each.fingerprint() for each in (found, corrected, renamed)}) == 3


def test_the_fingerprint_of_class_folders_is_that_of_their_images() -> None:
    images = FileImages.of("nowhere", ["ant/0.png", "bee/0.png"])
    assert Listing("set/val", images, np.array([0, 1]), ("ant", "bee")).fingerprint() == images.fingerprint()
