"""ImageFolder trees as they are found in the wild: what is a split, what a class, what is left out and said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawing import draw_tree

from imgcls.data.folder import open_folder, read_split
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


def test_a_class_called_val_is_a_class(tmp_path: Path) -> None:
    """Only a folder that holds class folders is a split."""
    source = open_folder(str(draw_tree(tmp_path, {"val": 2, "train": 1})))
    assert source.flat
    assert source.splits["train"]().classes == ("train", "val")


def test_splits_are_read_only_when_asked_for(tmp_path: Path) -> None:
    """`train` never looks at the test split, so trouble in there cannot stop it."""
    draw_tree(tmp_path, {"train/cat": 1, "test/cat": 0})
    source = open_folder(str(tmp_path))
    assert len(source.splits["train"]().images) == 1
    with pytest.raises(DataError, match=r"test: no images in its class folders"):
        source.splits["test"]()


def test_one_level_too_deep_gets_the_line_to_type(tmp_path: Path) -> None:
    draw_tree(tmp_path, {"pets/train/cat": 1, "pets/train/dog": 1})
    with pytest.raises(DataError, match=rf"pets/ has train/: type --data {tmp_path}/pets"):
        open_folder(str(tmp_path))


def test_no_class_folders_says_what_is_expected(tmp_path: Path) -> None:
    draw_tree(tmp_path, {".": 3})
    with pytest.raises(DataError, match=r"no class folders; expected .*/train/CLASS/IMAGE or .*/CLASS/IMAGE"):
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
