"""Which images train, which validate, which are evaluated: chosen once, remembered, said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import draw_tree
from PIL import Image

from imgcls.data import draws
from imgcls.data.holdout import NO_HOLDOUT, name_hashes
from imgcls.data.listing import Listing
from imgcls.data.splits import Splits, for_evaluation, for_training, open_source
from imgcls.errors import DataError, UsageError


def names(listing: Listing | None) -> list[str]:
    assert listing is not None
    return [listing.images.name(index) for index in range(len(listing.images))]


def training(root: Path, val_split: float = 0.2, seed: int = 0, **options: object) -> Splits:
    return for_training(str(root), val_split=val_split, seed=seed, **options)  # type: ignore[arg-type]


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return draw_tree(tmp_path, {"ant": 20, "bee": 10, "cat": 3}, size=(4, 4))


def test_a_validation_folder_is_used_and_nothing_held_out(tmp_path: Path) -> None:
    splits = training(draw_tree(tmp_path, {"train/ant": 3, "train/bee": 3, "val/ant": 1, "val/bee": 2}, size=(4, 4)))
    assert splits.classes == ("ant", "bee")
    assert splits.validation == "val/ 3"
    assert len(splits.train.images) == 6
    assert names(splits.val) == ["ant/000.png", "bee/000.png", "bee/001.png"]
    assert len(splits.holdout) == 0
    assert splits.dataset is None
    assert splits.findings == ()


def test_without_one_a_stratified_share_is_held_out(flat: Path) -> None:
    splits = training(flat)
    assert splits.val is not None
    assert splits.val.counts().tolist() == [4, 2, 1]
    assert splits.train.counts().tolist() == [16, 8, 2]
    assert not set(names(splits.val)) & set(names(splits.train))
    assert np.array_equal(splits.holdout, np.sort(name_hashes(splits.val)))
    assert splits.holdout.dtype == np.int64
    assert splits.validation == "7 held out of train"
    assert len(set(splits.holdout_content.tolist())) == 7


def test_the_hold_out_follows_the_seed(flat: Path) -> None:
    assert names(training(flat).val) == names(training(flat).val)
    assert names(training(flat, seed=1).val) != names(training(flat).val)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_each_class_of_two_or_more_has_images_on_both_sides(tmp_path: Path, share: float) -> None:
    """A class whose images were all held out could not be learned."""
    splits = training(draw_tree(tmp_path, {"ant": 2, "bee": 3, "cat": 40}, size=(4, 4)), val_split=share)
    assert splits.val is not None
    assert splits.val.counts().min() >= 1
    assert splits.train.counts().min() >= 1
    assert splits.val.counts()[2] == max(1, round(40 * share))


def test_a_class_of_one_image_is_trained_on_and_the_gap_said(tmp_path: Path) -> None:
    splits = training(draw_tree(tmp_path, {"ant": 1, "bee": 10}, size=(4, 4)))
    assert splits.val is not None
    assert splits.val.counts().tolist() == [0, 2]
    assert splits.train.counts().tolist() == [1, 8]
    assert [finding.code for finding in splits.findings] == ["class-without-images"]


def test_images_added_later_move_nothing(flat: Path) -> None:
    """The checkpoint remembers what was held out, and none of it may ever be trained on."""
    before = training(flat)
    added = {f"{name}/new{number}.png" for name in ("ant", "bee") for number in range(15)}
    for name in added:
        Image.new("RGB", (4, 4)).save(flat / name)
    (flat / "ant" / "000.png").rename(flat / "ant" / "renamed.png")
    after = training(flat, holdout=before.holdout)
    assert set(names(after.val)) == set(names(before.val)) - {"ant/000.png"}
    assert set(names(after.train)) == (set(names(before.train)) - {"ant/000.png"}) | added | {"ant/renamed.png"}
    split, evaluated = for_evaluation(str(flat), before.classes, split=None, holdout=before.holdout)
    assert (split, names(evaluated)) == ("val", names(after.val))


def test_val_split_0_trains_on_everything(flat: Path) -> None:
    splits = training(flat, val_split=0)
    assert splits.val is None
    assert len(splits.train.images) == 33
    assert len(splits.holdout) == 0


def test_limit_is_a_seeded_sample_of_each_split(flat: Path) -> None:
    splits = training(flat, limit=5)
    assert len(names(splits.train)) == len(names(splits.val)) == 5
    assert names(splits.train) == names(training(flat, limit=5).train)
    assert names(splits.train) != names(training(flat, limit=5, seed=3).train)
    assert set(names(splits.train)) <= set(names(training(flat).train))
    assert len(splits.holdout) == 7, "the hold-out is chosen before, and stays the same"


def test_the_fingerprint_is_of_what_is_there(flat: Path) -> None:
    before = training(flat).fingerprint
    assert training(flat, seed=1, limit=3).fingerprint == before
    Image.new("RGB", (4, 4)).save(flat / "ant" / "more.png")
    assert training(flat).fingerprint != before


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"train/ant": 3}, "train: only one class, 'ant': add a folder for each other class"),
        ({"train/ant": 3, "train/bee": 0}, "train: no images of class 'bee': add some or remove the folder"),
        ({"train/ant": 0, "train/bee": 0}, "train: no images in its class folders"),
        ({"test/ant": 3, "test/bee": 3}, "no train/ folder with class folders"),
        ({"train": 3, "val/ant": 3, "val/bee": 3}, "train: 3 images and no class folders, so that their classes are"),
        ({"train/ant": 3, "train/bee": 3, "val": 2}, "val: 2 images and no class folders, so that their classes are"),
        ({"train/ant": 3, "train/bee": 3, "val": 0}, "val: no images: put the images"),
        ({"learn/ant": 3, "learn/bee": 3, "rest/ant": 3, "rest/bee": 3}, "learn/ and rest/ hold the same folders"),
        ({"train/ant": 1, "train/bee": 1}, "too few images to hold some out: add images or type --val-split 0"),
        ({"train/ant": 2, "train/bee": 2, "val/ant": 0}, "val: no images in its class folders"),
        ({"train/ant": 2, "train/bee": 2, "val/ant": 1, "val/wasp": 1}, "val: unknown class 'wasp'"),
        ({"train/ant": 2, "train/bee": 2, "val/Ant": 1}, "class 'Ant' is written 'ant' in the training data"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path: Path, layout: dict[str, int], message: str) -> None:
    with pytest.raises(DataError) as caught:
        training(draw_tree(tmp_path, layout, size=(4, 4)))
    assert message in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_validation_split_that_lacks_a_class_is_mapped_by_name_with_a_warning(tmp_path: Path) -> None:
    layout = {"train/ant": 2, "train/bee": 2, "train/cat": 2, "val/ant": 0, "val/bee": 1, "val/cat": 1}
    splits = training(draw_tree(tmp_path, layout, size=(4, 4)))
    assert splits.val is not None
    assert splits.val.labels.tolist() == [1, 2]
    assert [(finding.code, finding.severity) for finding in splits.findings] == [("class-without-images", "warning")]


def test_notes_about_the_folders_reach_the_user(flat: Path) -> None:
    (flat / "ant" / "a.heic").touch()
    (flat / ".ipynb_checkpoints").mkdir()
    assert {finding.code for finding in training(flat).findings} == {"ignored-files", "hidden-folders"}


ALL = {"train": 6, "val": 2, "test": 4}


@pytest.mark.parametrize(
    ("present", "chosen"),
    [(("train", "val", "test"), "test"), (("train", "val"), "val"), (("test",), "test"), (("val",), "val")],
)
def test_evaluation_takes_test_before_validation(tmp_path: Path, present: tuple[str, ...], chosen: str) -> None:
    layout = {f"{split}/{name}": ALL[split] // 2 for split in present for name in ("ant", "bee")}
    split, listing = for_evaluation(
        str(draw_tree(tmp_path, layout, size=(4, 4))), ["ant", "bee"], split=None, holdout=NO_HOLDOUT
    )
    assert (split, len(listing.images)) == (chosen, ALL[chosen])


def test_evaluation_takes_the_recorded_hold_out_of_a_flat_folder(flat: Path) -> None:
    trained = training(flat)
    for asked in (None, "val"):
        split, listing = for_evaluation(str(flat), trained.classes, split=asked, holdout=trained.holdout)
        assert (split, names(listing)) == ("val", names(trained.val))
    split, listing = for_evaluation(str(flat), trained.classes, split="train", holdout=trained.holdout)
    assert (split, names(listing)) == ("train", names(trained.train))


def test_evaluation_of_other_class_folders_takes_all_of_them(flat: Path) -> None:
    strange = np.array([1, 2, 3], dtype=np.int64)  # hashes of images that are not here
    for holdout in (NO_HOLDOUT, strange):
        split, listing = for_evaluation(str(flat), ["ant", "bee", "cat"], split=None, holdout=holdout)
        assert (split, len(listing.images)) == ("all", 33)


def test_evaluation_maps_classes_by_name(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"test/bee": 1, "test/cat": 2}, size=(4, 4))
    _, listing = for_evaluation(str(tmp_path), ["cat", "ant", "bee"], split=None, holdout=NO_HOLDOUT)
    assert listing.labels.tolist() == [2, 0, 0]
    with pytest.raises(DataError, match="unknown class 'cat'"):
        for_evaluation(str(tmp_path), ["ant", "bee"], split=None, holdout=NO_HOLDOUT)


def test_evaluation_says_what_there_is_instead(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"train/ant": 2, "train/bee": 2}, size=(4, 4))
    strange = np.array([1, 2, 3], dtype=np.int64)
    for split, holdout, message in [
        ("test", NO_HOLDOUT, "no test images; type --split train"),
        (None, NO_HOLDOUT, "neither test nor validation images; type --split train"),
        (None, strange, "neither test nor validation images; type --split train"),
        ("val", strange, "none of the 3 images held out in training is here; type --split train"),
    ]:
        with pytest.raises(DataError, match=message):
            for_evaluation(str(tmp_path), ["ant", "bee"], split=split, holdout=holdout)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--data is missing"),
        ("missing/", "--data missing/: no such folder or data set"),
        ("cifar", "--data cifar: no such folder or data set (did you mean 'cifar10'?); names: cifar10, cifar100, "),
        ("a-file", "--data a-file: is a file; give the folder"),
    ],
)
def test_what_is_no_source_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    with pytest.raises(UsageError) as caught:
        open_source(text)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_folder_with_a_data_sets_name_wins_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_tree(Path("mnist"), {"ant": 3, "bee": 3}, size=(4, 4))
    splits = training(Path("mnist"))
    assert splits.dataset is None
    assert splits.classes == ("ant", "bee")
    (note,) = splits.findings
    assert str(note) == "using the folder mnist/; type --data mnist:ROOT for the data set"


def test_a_hold_out_that_is_partly_gone_is_said(tmp_path: Path) -> None:
    root = draw_tree(tmp_path, {"train/ant": 10, "train/bee": 10})
    splits = for_training(str(root), val_split=0.2, seed=0)
    assert splits.val is not None
    (root / "train" / splits.val.images.name(0)).unlink()
    chosen, listing = for_evaluation(str(root), splits.classes, split=None, holdout=splits.holdout)
    assert (chosen, len(listing.images)) == ("val", 3)
    assert "3 of the 4 images held out in training are here" in listing.findings[0].message


def test_classes_that_differ_in_case_only_are_said(tmp_path: Path) -> None:
    root = draw_tree(tmp_path, {"train/cat": 4, "train/Cat": 4, "train/dog": 4})
    (finding,) = for_training(str(root), val_split=0.25, seed=0).findings
    assert (finding.code, finding.severity) == ("case-twins", "warning")
    assert "'Cat', 'cat'" in finding.message


def evaluation(root: Path, trained: Splits, split: str | None = None) -> tuple[str, Listing]:
    return for_evaluation(
        str(root), trained.classes, split=split, holdout=trained.holdout, content=trained.holdout_content
    )


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Another data set with the names of `flat`, as cameras give them."""
    return draw_tree(tmp_path / "other", {"ant": 20, "bee": 10, "cat": 3}, size=(4, 4), seed=1)


def test_a_folder_with_the_same_numbering_is_another_data_set(tmp_path: Path, numbered: Path) -> None:
    """BMP files of one size have one number of bytes: it is the content that tells."""
    flat = draw_tree(tmp_path / "flat", {"ant": 20, "bee": 10, "cat": 3}, size=(4, 4))
    for root in (flat, numbered):
        for path in root.rglob("*.png"):
            with Image.open(path) as image:
                image.save(path.with_suffix(".bmp"))
            path.unlink()
    trained = training(flat)
    assert evaluation(flat, trained)[1].findings == ()
    for split, name in ((None, "all"), ("train", "train")):
        chosen, listing = evaluation(numbered, trained, split)
        assert (chosen, len(listing.images)) == (name, 33)
        assert "7 images have the names of images held out in training, and 7 of them" in listing.findings[0].message
    with pytest.raises(DataError, match="taken for another data set, of which nothing was held out; type --split tr"):
        evaluation(numbered, trained, "val")


def test_without_recorded_content_names_decide(tmp_path: Path, numbered: Path) -> None:
    trained = training(draw_tree(tmp_path / "flat", {"ant": 20, "bee": 10, "cat": 3}, size=(4, 4)))
    chosen, listing = for_evaluation(str(numbered), trained.classes, split=None, holdout=trained.holdout)
    assert (chosen, len(listing.images)) == ("val", 7)


def test_a_few_changed_files_are_left_out_and_said(flat: Path) -> None:
    """One that was renumbered may have been trained on."""
    trained = training(flat)
    first = names(trained.val)[0]
    (flat / first).write_bytes((flat / names(trained.train)[0]).read_bytes())
    chosen, listing = evaluation(flat, trained)
    assert (chosen, names(listing)) == ("val", names(trained.val)[1:])
    assert "6 of the 7 images held out in training are here, 1 more have other content" in listing.findings[0].message
    assert names(evaluation(flat, trained, "train")[1]) == names(trained.train)


def test_images_added_later_leave_the_hold_out_alone(flat: Path) -> None:
    trained = training(flat)
    draw_tree(flat, {"ant/new": 9}, size=(4, 4), seed=2)
    assert names(evaluation(flat, trained)[1]) == names(trained.val)
    again = training(flat, holdout=trained.holdout)
    assert again.holdout_content.tolist() == trained.holdout_content.tolist()


@pytest.mark.parametrize("recorded", ["name", "name as it is written"])
def test_the_unicode_form_of_a_name_moves_nothing(tmp_path: Path, recorded: str) -> None:
    """A folder copied from a Mac; older checkpoints hashed the bytes as they were."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    mac = draw_tree(tmp_path / "mac", {decomposed: 10, "tea": 10}, size=(4, 4))
    trained = training(mac)
    holdout, content = trained.holdout, trained.holdout_content
    if recorded != "name":
        holdout, content = np.sort([draws.name_hash(name) for name in names(trained.val)]), NO_HOLDOUT
    else:
        (mac / decomposed).rename(mac / composed)
    chosen, listing = for_evaluation(str(mac), trained.classes, split=None, holdout=holdout, content=content)
    assert (chosen, len(listing.images)) == ("val", 4)
    assert listing.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ({"test": 4}, "test: 4 images and no class folders"),
        ({"test/unknown": 4}, "test: all images in unknown/, which"),
    ],
)
def test_a_test_split_without_labels_is_passed_over_and_said(
    tmp_path: Path, layout: dict[str, int], problem: str
) -> None:
    classes = {f"{split}/{name}": 3 for split in ("train", "val") for name in ("ant", "bee")}
    root = draw_tree(tmp_path, classes | layout, size=(4, 4))
    trained = training(root)
    assert len(trained.train.images) == 6
    chosen, listing = evaluation(root, trained)
    assert (chosen, len(listing.images)) == ("val", 6)
    assert problem in listing.findings[0].message
    with pytest.raises(DataError, match=problem):
        evaluation(root, trained, "test")


def test_unknown_classes_that_hold_known_ones_get_the_line_to_type(tmp_path: Path) -> None:
    root = draw_tree(tmp_path, {"learn/ant": 1, "learn/bee": 1, "rest/ant": 1}, size=(4, 4))
    with pytest.raises(DataError, match=rf"unknown classes 'learn', 'rest'.*has 'ant' in it: type --data {root}/learn"):
        for_evaluation(str(root), ["ant", "bee"], split=None, holdout=NO_HOLDOUT)
