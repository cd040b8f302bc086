"""ImageFolder trees as they are found in the wild: what is a split, what a class, what is left out and said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawing import draw_tree

from imgcls.data.class_folders import read_split
from imgcls.data.folder import open_folder
from imgcls.errors import DataError
from imgcls.pixels.decode import EXTENSIONS
from imgcls.schema import Finding


def finding(findings: tuple[Finding, ...], code: str) -> Finding:
    (found,) = [finding for finding in findings if finding.code == code]
    return found


def test_train_val_and_test_folders_are_splits(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"train/cat": 2, "train/dog": 3, "val/cat": 1, "val/dog": 1, "test/cat": 1})
    source = open_folder(str(tmp_path))
    assert sorted(source.splits) == ["test", "train", "val"]
    assert not source.flat
    train = source.splits["train"]()
    assert train.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 1, 1, 1]
    assert train.labels.dtype == np.int64
    assert [train.images.name(index) for index in (0, 4)] == ["cat/000.png", "dog/002.png"]
    assert train.counts().tolist() == [2, 3]
    assert train.findings == ()


def test_images_in_folders_within_a_class_are_of_that_class_which_is_said(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"fold1/cat": 2, "fold1/dog": 1, "fold2/bird": 1, "plain": 1})
    train = open_folder(str(tmp_path)).splits["train"]()
    assert train.classes == ("fold1", "fold2", "plain")
    said = finding(train.findings, "nested-folders")
    assert "count as of that class: fold1/ has cat/, dog/; fold2/ has bird/" in said.message
    assert "type --data one level deeper" in said.advice


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folders_have_three_names(tmp_path: Path, name: str) -> None:
    draw_tree(tmp_path, {"train/cat": 1, f"{name}/cat": 2})
    assert len(open_folder(str(tmp_path)).splits["val"]().images) == 2


def test_two_validation_folders_are_refused(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"train/cat": 1, "val/cat": 1, "valid/cat": 1})
    with pytest.raises(DataError, match=r"both val/ and valid/ hold validation images: remove or merge one"):
        open_folder(str(tmp_path))


def test_class_folders_directly_are_all_training_data(tmp_path: Path) -> None:
    source = open_folder(str(draw_tree(tmp_path, {"cat": 2, "dog": 1})))
    assert source.flat
    assert list(source.splits) == ["train"]
    assert source.splits["train"]().classes == ("cat", "dog")


def both(*splits: str) -> dict[str, int]:
    return {f"{split}/{name}": 2 for split in splits for name in ("cat", "dog")}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Val", "Test"),
        ("training_set", "validation-set", "test_set"),
        ("TRAINING", "Valid", "TESTING"),
        ("train data", "dev", "test_images"),
        ("trainset", "val_set", "testdata"),
    ],
)
def test_splits_have_many_spellings(tmp_path: Path, train: str, val: str, test: str) -> None:
    source = open_folder(str(draw_tree(tmp_path, both(train, val, test))))
    assert {split: read().where for split, read in source.splits.items()} == {
        "train": str(tmp_path / train),
        "val": str(tmp_path / val),
        "test": str(tmp_path / test),
    }
    assert source.notes == ()


@pytest.mark.parametrize("splits", [("train", "test"), ("Train", "Val"), ("training_set",), ("valid", "test")])
def test_splits_without_class_folders_are_no_classes(tmp_path: Path, splits: tuple[str, ...]) -> None:
    draw_tree(tmp_path, dict.fromkeys(splits, 3))
    with pytest.raises(DataError, match=r"/ without class folders: put the images of each class into a folder"):
        open_folder(str(tmp_path))


def test_a_class_may_be_called_like_a_split_and_this_is_said(tmp_path: Path) -> None:
    source = open_folder(str(draw_tree(tmp_path, {"valid": 2, "invalid": 1})))
    assert source.flat
    assert source.splits["train"]().classes == ("invalid", "valid")
    assert "valid/ is taken for a class, because invalid/" in finding(source.notes, "class-or-split").message


def test_a_train_folder_with_folders_beside_classes_may_be_either_and_is_refused(tmp_path: Path) -> None:
    """Taken for a split, it would lose the other classes."""
    draw_tree(tmp_path, {"train/steam": 2, "train/diesel": 2, "car": 2, "plane": 2})
    with pytest.raises(DataError, match=rf"lie images in car/, plane/: if train/ is a split, type --data {tmp_path}/"):
        open_folder(str(tmp_path))


def test_what_lies_beside_the_splits_is_named(tmp_path: Path) -> None:
    source = open_folder(str(draw_tree(tmp_path, both("train", "test") | {"unlabeled/a": 1, "docs": 0, ".": 2})))
    assert sorted(source.splits) == ["test", "train"]
    note = finding(source.notes, "left-out")
    assert note.severity == "warning"
    assert note.message.endswith("left out beside test/, train/: docs/, unlabeled/, 2 images")
    alone = open_folder(str(draw_tree(tmp_path / "alone", both("train") | {"docs": 0})))
    assert finding(alone.notes, "left-out").severity == "note"


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ({"val": 3}, "val: 3 images and no class folders, so that their classes are not known"),
        ({"val": 0}, "val: no images"),
    ],
)
def test_a_validation_folder_that_cannot_be_used_has_its_reason(
    tmp_path: Path, layout: dict[str, int], problem: str
) -> None:
    source = open_folder(str(draw_tree(tmp_path, both("train") | layout)))
    assert list(source.splits) == ["train"]
    assert source.unusable["val"] == f"{tmp_path}/{problem}"


@pytest.mark.parametrize(
    ("layout", "inside"),
    [(both("pets/train", "pets/test"), "pets"), (both("PetImages"), "PetImages"), (both("a/train"), "a")],
)
def test_one_folder_around_all_is_looked_through(tmp_path: Path, layout: dict[str, int], inside: str) -> None:
    source = open_folder(str(draw_tree(tmp_path, layout)))
    assert source.description == f"{tmp_path}/{inside}"
    assert source.splits["train"]().classes == ("cat", "dog")
    assert f"holds nothing but {inside}/, whose folders are used" in finding(source.notes, "looked-through").message


def test_a_class_that_a_checkpoint_knows_is_not_looked_through(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"cat/indoors": 1, "cat/outdoors": 1})
    assert open_folder(str(tmp_path), known=["cat", "dog"]).splits["train"]().classes == ("cat",)


def test_a_split_within_a_folder_of_its_name_is_looked_through(tmp_path: Path) -> None:
    source = open_folder(str(draw_tree(tmp_path, both("train/Train", "test/test"))))
    assert source.splits["train"]().where == str(tmp_path / "train/Train")
    assert source.splits["test"]().classes == ("cat", "dog")
    assert len([note for note in source.notes if note.code == "looked-through"]) == 2


@pytest.mark.parametrize(
    ("layout", "doubt"),
    [
        ({"ant": 2, "bee": 2, "all/ant": 2, "all/bee": 2}, "all/ is no class: it holds ant/, bee/ again"),
        ({"train/ant": 2, "train/bee": 2, "train/train/ant": 2}, "train/ is no class: it holds ant/ again"),
        (both("learn", "holdout"), "holdout/ and learn/ hold the same folders (cat/, dog/)"),
        (both("set/a", "set/b") | {"other": 1}, None),  # set holds folders of folders, and is one class
        (both("seg_train", "seg_test") | {"seg_pred": 2}, "or type --data {}/seg_train (if they are classes"),
        ({"train2017": 2, "val2017": 2}, "train2017/ and val2017/ look like splits"),
        ({"cat/train": 1, "cat/test": 1, "dog/train": 1, "dog/test": 1}, "cat/ holds test/, train/: put the splits"),
        (both("pets/train") | {"more/a": 1}, "pets/ has train/ with class folders: type --data {}/pets"),
        ({"a/b/cat": 1, "a/b/dog": 1}, "nothing but a/, with b/ in it: type --data {}/a"),
        ({"cat/2023": 1, "cat/2024": 1, "dog/2023": 1, "dog": 1}, None),
        ({"cat/images": 1, "dog/images": 1}, None),
        ({"train_station": 1, "test_tube": 1}, None),
    ],
)
def test_folders_that_may_be_no_classes_are_doubted(tmp_path: Path, layout: dict[str, int], doubt: str | None) -> None:
    found = open_folder(str(draw_tree(tmp_path, layout))).splits["train"]().doubt
    assert found is None if doubt is None else found is not None and doubt.format(tmp_path) in found


def test_splits_are_read_only_when_asked_for(tmp_path: Path) -> None:
    """`train` never looks at the test split, so trouble in there cannot stop it."""
    draw_tree(tmp_path, {"train/cat": 1, "test/cat": 0})
    source = open_folder(str(tmp_path))
    assert len(source.splits["train"]().images) == 1
    with pytest.raises(DataError, match=r"test: no images in its class folders"):
        source.splits["test"]()


def test_no_class_folders_says_what_is_expected(tmp_path: Path) -> None:
    draw_tree(tmp_path, {".": 3})
    expected = r"no class folders; expected .*/train/CLASS/IMAGE or .*/CLASS/IMAGE; found 3 images directly in it"
    with pytest.raises(DataError, match=expected):
        open_folder(str(tmp_path))


def test_class_folders_without_images_say_what_is_expected(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"cat": 0, "dog": 0})
    with pytest.raises(DataError, match=r"no images in its class folders; expected .*/CLASS/IMAGE\.jpg"):
        open_folder(str(tmp_path)).splits["train"]()


def test_images_lie_at_any_depth_below_their_class(tmp_path: Path) -> None:
    listing = read_split(str(draw_tree(tmp_path, {"cat": 1, "cat/indoors/2024": 2, "dog": 1})))
    assert listing.classes == ("cat", "dog")
    assert listing.counts().tolist() == [3, 1]
    assert listing.images.name(1) == "cat/indoors/2024/000.png"


def test_hidden_folders_are_left_out_with_a_note(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"cat": 1, ".ipynb_checkpoints": 1, "__MACOSX": 1, "cat/.thumbnails": 1})
    listing = read_split(str(tmp_path))
    assert listing.classes == ("cat",)
    assert len(listing.images) == 1
    note = finding(listing.findings, "hidden-folders")
    assert note.severity == "note"
    assert ".ipynb_checkpoints, __MACOSX" in note.message


def test_what_file_servers_and_systems_leave_behind_is_no_class_and_no_picture(tmp_path: Path) -> None:
    left = ("@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@Recycle")
    draw_tree(tmp_path, {"cat": 2, "dog/sub": 1, "cat/@eaDir/x.png": 3, "dog/sub/@eaDir": 1} | dict.fromkeys(left, 1))
    listing = read_split(str(tmp_path))
    assert listing.classes == ("cat", "dog")
    assert listing.counts().tolist() == [2, 1]
    note = finding(listing.findings, "hidden-folders")
    assert "@eaDir (3 times)" in note.message
    assert all(name in note.message for name in left)


def test_pictures_beside_the_class_folders_are_said(tmp_path: Path) -> None:
    listing = read_split(str(draw_tree(tmp_path, {"cat": 1, "dog": 1, ".": 3})))
    assert len(listing.images) == 2
    found = finding(listing.findings, "loose-images")
    assert (found.severity, found.message) == ("warning", f"{tmp_path}: 3 images beside the class folders left out")


def test_nothing_but_pictures_of_another_kind_says_to_convert_them(tmp_path: Path) -> None:
    for name in ("cat/1.HEIC", "cat/2.heic", "dog/1.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"no images in its class folders; 3 \.heic: convert to \.jpg or \.png"):
        read_split(str(tmp_path))


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("train/cat/up", ".."),
        ("train/cat/all", "../.."),
        ("train/cat/dogs", "../dog"),
        ("train/cat/deep", "../dog/deep"),
        ("train/cat/9.png", "../dog/001.png"),
        ("train/cat/val", "../../val/cat"),
        ("train/everything", "../.."),
        ("train/cat/far", "/"),
    ],
)
def test_a_link_gives_a_class_no_image_of_another(tmp_path: Path, link: str, target: str) -> None:
    root = draw_tree(tmp_path, both("train", "val") | {"train/dog/deep": 1})
    (root / link).symlink_to(target)
    listing = open_folder(str(root)).splits["train"]()
    assert listing.classes == ("cat", "dog")
    assert listing.counts().tolist() == [2, 3]
    assert str(root / link) in finding(listing.findings, "links-left-out").message


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("train/wolf", "dog", "wolf/ and dog/ are the same folder"),
        ("train/wolf", "dog/deep", "train/wolf: is a link into .*/train/dog, so that images count twice"),
        ("train/wolf", "../val/dog", "train/wolf: is a link into .*/val, so that images count twice"),
        ("val", "train", r"(val: lies in .*/train|train: lies in .*/val) \(a link\): the same images in both"),
    ],
)
def test_a_class_or_split_that_is_a_link_to_another_is_refused(
    tmp_path: Path, link: str, target: str, message: str
) -> None:
    root = draw_tree(tmp_path, both("train") | {"train/dog/deep": 1} | (both("val") if link != "val" else {}))
    (root / link).symlink_to(target)
    with pytest.raises(DataError, match=message):
        open_folder(str(root)).splits["train"]()


def test_a_test_split_that_is_the_validation_split_is_said(tmp_path: Path) -> None:
    root = draw_tree(tmp_path, both("train", "val"))
    (root / "test").symlink_to("val")
    source = open_folder(f"{root}/")
    assert len(source.splits["test"]().images) == 4
    (note,) = source.notes
    assert (note.code, note.severity) == ("test-is-validation", "warning")


def test_links_to_folders_elsewhere_are_fine_but_not_for_two_classes(tmp_path: Path) -> None:
    root = draw_tree(tmp_path / "set", both("train") | {"../pool/cats": 3, "../pool/more": 1})
    (root / "train/cat/pool").symlink_to(tmp_path / "pool/cats")
    (root / "train/wolf").symlink_to(tmp_path / "pool/more")
    assert read_split(str(root / "train")).counts().tolist() == [5, 2, 1]
    (root / "train/dog/pool").symlink_to(tmp_path / "pool/cats")
    listing = read_split(str(root / "train"))
    assert listing.counts().tolist() == [5, 2, 1]
    assert "train/dog/pool" in finding(listing.findings, "links-left-out").message


def test_one_name_in_two_unicode_forms_is_refused_and_shown_apart(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"caf\u00e9": 1, "cafe\u0301": 1})
    with pytest.raises(DataError) as caught:
        read_split(str(tmp_path))
    assert r"'cafe\u0301' and 'caf\xe9' have one name in two Unicode forms" in str(caught.value)


def test_ignored_files_are_counted_with_what_to_do(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"cat": 1})
    for name in ("cat/a.heic", "cat/b.HEIC", "cat/c.gif", "cat/Thumbs.db", "cat/._d.png", "README"):
        (tmp_path / name).touch()
    listing = read_split(str(tmp_path))
    assert len(listing.images) == 1
    note = finding(listing.findings, "ignored-files")
    assert "6 files ignored (.heic 2, " in note.message
    assert "no extension 1" in note.message
    assert note.advice == "convert .heic, .gif to .jpg or .png to use them"
    assert len(note.paths) == 6


def test_ignored_files_that_are_no_images_need_nothing(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"cat": 1})
    (tmp_path / "cat" / "labels.csv").touch()
    note = finding(read_split(str(tmp_path)).findings, "ignored-files")
    assert "1 file ignored (.csv 1)" in note.message
    assert note.advice == "nothing to do if they are no images"


def test_the_stray_gif_of_the_photographs_is_said(photographs: Path) -> None:
    source = open_folder(str(photographs))
    train, val = source.splits["train"](), source.splits["val"]()
    assert (len(train.images), len(val.images)) == (244, 153)
    assert train.classes == val.classes == ("ants", "bees")
    assert "1 file ignored (.gif 1)" in finding(train.findings, "ignored-files").message


def test_symbolic_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"set/cat": 1, "elsewhere": 2})
    root = tmp_path / "set"
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "loop").symlink_to(root / "cat")
    (root / "itself").symlink_to("itself")
    (root / "cat" / "itself").symlink_to("itself")
    listing = read_split(str(root))
    assert listing.classes == ("cat", "dog")
    assert listing.counts().tolist() == [1, 2]
    assert "2 files ignored" in finding(listing.findings, "ignored-files").message


@pytest.mark.parametrize("closed", ["cat", "train"])
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    """A silent gap in the training data would be worse than stopping."""
    draw_tree(tmp_path, {"train/cat": 1, "train/dog": 1})
    scandir = os.scandir

    def guarded(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith(closed):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(DataError, match=rf"{closed}: .*(readable|permissions)"):
        open_folder(str(tmp_path)).splits["train"]()


def test_the_order_is_the_names_not_the_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_tree(tmp_path, {"cat": 5, "dog": 5})
    before = read_split(str(tmp_path))
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    after = read_split(str(tmp_path))
    assert [after.images.name(i) for i in range(10)] == [before.images.name(i) for i in range(10)]
    assert after.classes == before.classes


def test_the_extensions_are_those_of_torchvisions_imagefolder() -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(EXTENSIONS) == set(IMG_EXTENSIONS)
