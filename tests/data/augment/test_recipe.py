"""A recipe is a list of operations; what it prints, needs and changes follows from the list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augmenting import KINDS, LARGE, SMALL, augment, augmentation, drawn, frames, one, photo
from PIL import Image

from imgcls.config import ResizeRule
from imgcls.data.augment import recipe
from imgcls.data.augment.flip import Flip
from imgcls.data.augment.operation import Draws, FrameOperation
from imgcls.data.augment.recipe import OPERATIONS, Augmentation
from imgcls.data.augment.rotate import Rotate
from imgcls.data.augment.shift import Shift
from imgcls.pixels.transform import transform
from imgcls.schema import Preprocess

OPTIONS: dict[str, dict[str, Any]] = {
    "flip": {"flip": True},
    "alternate flip": {"flip": True, "alternate_flip": True},
    "rotate": {"rotate": 20},
    "color jitter": {"color_jitter": 0.4},
    "cutout": {"cutout": 9},
    "all": {"flip": True, "rotate": 20, "color_jitter": 0.4, "cutout": 9},
}


def all_recipes() -> Iterator[Augmentation]:
    for preprocess, kind, options in product((SMALL, LARGE), KINDS, ({}, *OPTIONS.values())):
        yield augmentation(preprocess, augment=kind, **options)


@pytest.mark.parametrize(
    ("preprocess", "asked", "names"),
    [
        (LARGE, {"augment": "none"}, []),
        (LARGE, {"augment": "light", "flip": True}, ["crop", "flip"]),
        (LARGE, {"augment": "standard", "flip": True, "rotate": 5, "cutout": 3}, ["crop", "flip", "rotate", "cutout"]),
        (LARGE, {"augment": "strong"}, ["crop", "trivial_augment", "erasing"]),
        (SMALL, {"augment": "light", "flip": True}, ["flip"]),
        (SMALL, {"augment": "light"}, []),
        (SMALL, {"augment": "standard", "flip": True}, ["shift"]),
        (SMALL, {"augment": "strong", "color_jitter": 0.1}, ["shift", "color_jitter", "trivial_augment", "erasing"]),
        (SMALL, {"augment": "none", "flip": True, "alternate_flip": True}, ["flip"]),
    ],
)
def test_the_operations_of_a_recipe(preprocess: Preprocess, asked: dict[str, Any], names: list[str]) -> None:
    assert [operation.name for operation in augmentation(preprocess, **asked).operations] == names


def test_a_shift_mirrors_too_where_that_is_asked_for() -> None:
    (with_flip,) = augmentation(SMALL, augment="standard", flip=True, alternate_flip=True).operations
    (without,) = augmentation(SMALL, augment="standard").operations
    assert (with_flip, without) == (Shift(4, Flip(True, by_itself=False)), Shift(4, None))


def test_every_file_of_an_operation_is_in_the_list_and_is_the_name_of_its_draws() -> None:
    files = {path.stem for path in Path(recipe.__file__).parent.glob("*.py")} - {"__init__", "operation", "recipe"}
    assert files == OPERATIONS.keys()
    found = {operation.name: type(operation).__module__ for each in all_recipes() for operation in each.operations}
    assert found == {name: f"imgcls.data.augment.{name}" for name in OPERATIONS}


def test_no_two_operations_of_a_recipe_share_their_draws() -> None:
    for augmented in all_recipes():
        separate = [name for each in augmented.operations for name in each.draw(0, 1, np.arange(2), np.arange(2))]
        assert len(set(separate)) == len(separate)
        assert list(drawn(augmented, 2)) == separate


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
def test_operations_draw_independently_of_each_other(preprocess: Preprocess) -> None:
    draws = np.hstack(list(drawn(augmentation(preprocess, augment="strong", **OPTIONS["all"]), 10000).values()))
    assert len(np.unique(draws)) == draws.size
    assert abs(np.corrcoef(draws.T) - np.eye(draws.shape[1])).max() < 0.05


class Nothing(FrameOperation):
    """A new operation."""

    name, draws = "nothing", 7

    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        return images


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
def test_another_operation_changes_no_draws_of_the_others(preprocess: Preprocess) -> None:
    everything = augmentation(preprocess, augment="strong", **OPTIONS["all"])
    draws = drawn(everything, 50)
    more = drawn(replace(everything, operations=(Nothing(), *everything.operations)), 50)
    assert more.keys() - draws.keys() == {"nothing"}
    assert all(np.array_equal(more[name], draws[name]) for name in draws)
    for kind, option in product(KINDS, OPTIONS.keys() - {"alternate flip"}):
        fewer = drawn(augmentation(preprocess, augment=kind, **OPTIONS[option]), 50)
        assert all(np.array_equal(fewer[name], draws[name]) for name in fewer)


def test_another_number_of_draws_changes_no_draws_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = augmentation(LARGE, augment="strong", **OPTIONS["all"])
    before = drawn(everything, 50)
    monkeypatch.setattr(Rotate, "draws", 3)
    after = drawn(everything, 50)
    assert after["rotate"].shape == (50, 3)
    assert np.array_equal(after["rotate"][:, :1], before["rotate"])
    assert all(np.array_equal(after[name], before[name]) for name in before.keys() - {"rotate"})


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize(
    ("asked", "printed"),
    [
        ({"augment": "standard", "flip": True}, "standard"),
        ({"augment": "none"}, "none"),
        (
            {"augment": "strong", "rotate": 15, "color_jitter": 0.4},
            "strong, no flip, rotate 15°, color jitter 0.4",
        ),
        ({"augment": "light", "flip": True, "alternate_flip": True}, "light, alternating flip"),
        ({"augment": "standard", "flip": True, "alternate_flip": True}, "standard, alternating flip"),
        ({"flip": True, "alternate_flip": True, "cutout": 8}, "none, flip, alternating flip, cutout 8"),
        ({"flip": True, "rotate": 2.5}, "none, flip, rotate 2.5°"),
    ],
)
def test_a_recipe_describes_itself(asked: dict[str, Any], printed: str, preprocess: Preprocess) -> None:
    assert str(augmentation(preprocess, **asked)) == printed


def test_what_changes_nothing() -> None:
    assert augmentation(LARGE).is_identity
    assert not any(augmentation(LARGE, augment=kind).is_identity for kind in KINDS[1:])
    assert not any(augmentation(LARGE, **options).is_identity for options in OPTIONS.values())
    assert augmentation(SMALL, augment="light").is_identity, "a small picture is not even shifted"
    assert not augmentation(SMALL, augment="light", flip=True).is_identity


def test_what_a_gpu_can_do() -> None:
    assert [augmentation(SMALL, augment=kind, **OPTIONS["all"]).on_gpu for kind in KINDS] == [True, True, True, False]


def test_which_pictures_are_decoded_larger_than_the_input() -> None:
    large = Preprocess(size=224, resize=256)
    assert [augmentation(large, augment=kind, **OPTIONS["all"]).shorter for kind in KINDS] == [None, 317, 448, 792]
    assert [augmentation(replace(SMALL, size=40, resize=40), augment=kind).shorter for kind in KINDS] == [None] * 4
    assert augmentation(replace(SMALL, size=41, resize=41), augment="light").shorter == 58


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
def test_none_is_the_deterministic_transform(preprocess: Preprocess) -> None:
    plain = transform(np.asarray(photo(70, 50)), preprocess)
    assert np.array_equal(augment(photo(70, 50), preprocess, augmentation(preprocess), {}), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(32, 32), (90, 40), (40, 90), (5, 7), (1, 1), (1, 300)])
@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
def test_any_picture_becomes_a_square_of_uint8(
    kind: str, rule: ResizeRule, size: tuple[int, int], preprocess: Preprocess
) -> None:
    preprocess = replace(preprocess, rule=rule)
    augmented = augmentation(preprocess, augment=kind, flip=True, rotate=30, color_jitter=0.5)
    draws = drawn(augmented, 5)
    for values in draws.values():
        values[3], values[4] = 0, 1 - 2.0**-53
    for row in range(5):
        pixels = augment(photo(*size), preprocess, augmented, draws, row)
        assert pixels.shape == (preprocess.size, preprocess.size, 3)
        assert pixels.dtype == np.uint8


def test_strong_survives_many_draws_on_odd_pictures() -> None:
    pictures = [photo(33, 47), Image.new("RGB", (20, 20)), Image.new("RGB", (3, 60), "white")]
    for preprocess in (SMALL, LARGE):
        augmented = augmentation(preprocess, augment="strong", flip=True)
        draws = drawn(augmented, 600, seed=3)
        for row in range(600):
            pixels = augment(pictures[row % 3], preprocess, augmented, draws, row)
            assert pixels.shape[0] == preprocess.size


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_images_one_by_one(kind: str, options: str, preprocess: Preprocess) -> None:
    augmented = augmentation(preprocess, augment=kind, **OPTIONS[options])
    draws = augmented.draw(5, 2, np.arange(12) + 100, np.arange(12))
    whole = augmented.vary(frames(preprocess, 12), draws)
    assert (whole.shape, whole.dtype) == ((12, preprocess.size, preprocess.size, 3), torch.uint8)
    for row, frame in enumerate(frames(preprocess, 12)):
        assert torch.equal(augmented.vary(frame[None].clone(), one(draws, row))[0], whole[row])


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize(
    "asked",
    [
        *({"augment": kind, "flip": True} for kind in ("light", "standard", "strong")),
        *(OPTIONS[option] for option in ("rotate", "color jitter", "cutout")),
    ],
    ids=str,
)
def test_copies_of_one_image_become_different_inputs(asked: dict[str, Any], preprocess: Preprocess) -> None:
    augmented = augmentation(preprocess, **asked)
    draws = augmented.draw(0, 1, np.arange(64), np.zeros(64, dtype=np.int64))
    pixels = np.asarray(photo(70, 70) if augmented.shorter else photo(*[preprocess.size] * 2))
    cut = np.stack([augmented.frame(pixels, draws, row) for row in range(64)])
    varied = augmented.vary(torch.from_numpy(cut), draws).numpy()
    few = preprocess is SMALL and asked.get("augment") == "light"  # a flip is all that happens
    assert len({image.tobytes() for image in varied}) >= (2 if few else 32)


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("kind", ["none", "standard"])
def test_a_filler_has_the_draws_of_the_first_place(kind: str, preprocess: Preprocess) -> None:
    augmented = augmentation(preprocess, augment=kind, **OPTIONS["all"])
    filler, first = (augmented.draw(0, 1, np.array([place]), np.array([7])) for place in (-1, 0))
    assert all(np.array_equal(filler[name], first[name]) for name in first)
