"""What the user names becomes a stream of paths: nothing twice, nothing silently left out."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from imgcls.errors import UsageError
from imgcls.inference.inputs import begun, expand, is_hidden, is_image_name, walk


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path, "b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.webp", "sub/deep/d.tiff", "__MACOSX/._b.jpg")
    make(tmp_path, ".cache/e.jpg")
    return tmp_path


def expanded(*arguments: str, **options: Any) -> list[str]:
    """Return all paths, whatever group they are in."""
    return list(chain.from_iterable(expand(arguments, **options)))


class Slow(io.BytesIO):
    """Gives one path at a time, as a slow producer does."""

    def read1(self, size: int | None = -1) -> bytes:
        return self.readline()


def below(root: Path, paths: Iterable[str]) -> list[str]:
    return [os.path.relpath(path, root) for path in paths]


def test_a_folder_gives_its_images_in_sorted_order(folder: Path) -> None:
    assert below(folder, expanded(str(folder))) == ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tiff"]


def test_arguments_keep_their_order_and_files_any_name(folder: Path) -> None:
    arguments = [str(folder / "sub"), str(folder / "notes.txt"), "missing.jpg"]
    assert expanded(*arguments) == [
        *(str(folder / "sub/c.webp"), str(folder / "sub/deep/d.tiff")),
        *(str(folder / "notes.txt"), "missing.jpg"),  # they become rows with an error
    ]


def test_globs_are_expanded_where_the_shell_did_not(folder: Path) -> None:
    assert below(folder, expanded(f"{folder}/*.jpg")) == ["b.jpg"]
    assert below(folder, expanded(f"{folder}/**/*.[tw]*")) == ["notes.txt", "sub/c.webp", "sub/deep/d.tiff"]
    assert expanded(f"{folder}/*.bmp") == []


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    make(tmp_path, "cat[1].jpg", "cat1.jpg")
    assert below(tmp_path, expanded(str(tmp_path / "cat[1].jpg"))) == ["cat[1].jpg"]


def test_a_folder_of_a_pattern_may_hold_brackets(tmp_path: Path) -> None:
    """What exists as it is written is no pattern: [1] would stand for 1."""
    make(tmp_path, "set [1]/a.jpg", "set [1]/b/[2]/c.jpg", "set 1/d.jpg")
    assert below(tmp_path, expanded(f"{tmp_path}/set [1]/*.jpg")) == ["set [1]/a.jpg"]
    assert below(tmp_path, expanded(f"{tmp_path}/set [1]/**/*.jpg")) == ["set [1]/a.jpg", "set [1]/b/[2]/c.jpg"]
    assert below(tmp_path, expanded(f"{tmp_path}/set [1-9]/*.jpg")) == ["set 1/d.jpg"]


def test_a_pattern_for_folders_gives_what_is_in_them_as_in_a_shell(folder: Path) -> None:
    assert below(folder, expanded(f"{folder}/s*")) == ["sub/c.webp", "sub/deep/d.tiff"]
    assert below(folder, expanded(f"{folder}/*")) == ["a.PNG", "b.jpg", "notes.txt", "sub/c.webp", "sub/deep/d.tiff"]


def test_what_file_servers_leave_behind_is_left_out_and_told(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "@eaDir/a.jpg/THUMB.jpg", "sub/@eaDir/x.jpg", "sub/#recycle/y.jpg", "sub/b.jpg")
    for argument in (tmp_path, f"{tmp_path}/*", f"{tmp_path}/**/*.jpg"):
        told: list[str] = []
        assert below(tmp_path, expanded(str(argument), on_hidden=told.append)) == ["a.jpg", "sub/b.jpg"]
        assert {"@eaDir", "sub/@eaDir", "sub/#recycle"} <= set(below(tmp_path, told))
    assert below(tmp_path, expanded(f"{tmp_path}/@eaDir")) == ["@eaDir/a.jpg/THUMB.jpg"]


def test_nul_bytes_without_the_option_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="-: standard input holds NUL bytes: type -0 if they end paths"):
        list(expand(["-"], io.BytesIO(b"a.jpg\0b.jpg\0")))


def test_standard_input_gives_one_path_per_line() -> None:
    stdin = io.BytesIO(b"a.jpg\n with space.jpg\n\n-dash.jpg\nlast.jpg")
    assert expanded("first.jpg", "-", "after.jpg", stdin=stdin) == [
        *("first.jpg", "a.jpg", " with space.jpg", "-dash.jpg", "last.jpg", "after.jpg"),
    ]


def test_nul_separated_paths_may_hold_newlines_and_any_bytes() -> None:
    stdin = io.BytesIO(b"new\nline.jpg\0caf\xe9.jpg\0")
    assert expanded("-", stdin=stdin, null_separated=True) == ["new\nline.jpg", os.fsdecode(b"caf\xe9.jpg")]


def test_a_slow_writer_gets_its_paths_through_as_it_writes() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stdin:
        groups = expand(["first.jpg", "-"], stdin)
        assert list(next(groups)) == ["first.jpg"], "before anything is read"
        os.write(writer, b"a.jpg\nb.j")
        assert list(next(groups)) == ["a.jpg"], "time to answer"
        os.write(writer, b"pg\nc.jpg\n")
        assert list(next(groups)) == ["b.jpg", "c.jpg"]
        os.close(writer)
        assert list(groups) == []


def test_the_beginning_can_be_read_ahead_and_nothing_gets_lost(folder: Path) -> None:
    images = ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tiff"]
    for most in (1, 3, 9):
        head, groups = begun(expand([str(folder)]), most)
        assert below(folder, head) == images[:most]
        assert below(folder, chain.from_iterable(groups)) == images
    stdin = Slow(b"a.jpg\nb.jpg\n")
    head, groups = begun(expand(["-", "z.jpg"], stdin), 9)
    assert head == ["a.jpg"]
    assert stdin.tell() == 6, "b.jpg might take a while"
    assert [list(group) for group in groups] == [["a.jpg"], ["b.jpg"], ["z.jpg"]]


def test_what_gave_nothing_is_named(folder: Path) -> None:
    empty: list[str] = []
    (folder / "nothing").mkdir()
    arguments = [f"{folder}/nothing", f"{folder}/*.bmp", f"{folder}/b.jpg", "-"]
    found = expanded(*arguments, stdin=io.BytesIO(), on_empty=empty.append)
    assert below(folder, found) == ["b.jpg"]
    assert empty == [f"{folder}/nothing", f"{folder}/*.bmp", "-"]
    head, groups = begun(expand([f"{folder}/nothing"], on_empty=empty.append), 5)
    assert (head, list(groups), empty[3:]) == ([], [], [f"{folder}/nothing"])


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "real/a.jpg", "outside/b.jpg")
    root = tmp_path / "real"
    (root / "again").symlink_to(root)
    (root / "elsewhere").symlink_to(tmp_path / "outside")
    (root / "twice").symlink_to(tmp_path / "outside")
    assert below(root, expanded(str(root))) == ["a.jpg", "elsewhere/b.jpg"]


def test_links_to_nowhere_and_to_themselves_are_passed_on(tmp_path: Path) -> None:
    """They become rows with an error of their own."""
    (tmp_path / "dangling.jpg").symlink_to("gone")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    make(tmp_path, "z.jpg")
    assert below(tmp_path, expanded(str(tmp_path))) == ["dangling.jpg", "itself.jpg", "z.jpg"]


def test_special_files_and_folders_with_an_image_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    make(tmp_path, "folder.jpg/a.png")
    assert below(tmp_path, expanded(str(tmp_path))) == ["pipe.jpg", "folder.jpg/a.png"]


def test_a_folder_that_cannot_be_read_shows_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "open/a.jpg", "closed/b.jpg")
    scandir = os.scandir

    def guarded(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert below(tmp_path, walk(str(tmp_path))) == ["closed", "open/a.jpg"]
    assert below(tmp_path, expanded(str(tmp_path))) == ["closed", "open/a.jpg"]


def test_names_with_odd_characters_come_through_unchanged(tmp_path: Path) -> None:
    odd = [
        "new\nline.jpg",
        "quote\"'.jpg",
        "esc\x1b[31m.jpg",
        "-dash.jpg",
        "\u202ertl.jpg",
        os.fsdecode(b"caf\xe9.jpg"),
    ]
    odd.append("x" * 251 + ".jpg")
    make(tmp_path, *odd)
    assert sorted(below(tmp_path, expanded(str(tmp_path)))) == sorted(odd)


def test_image_names_are_known_by_their_extension() -> None:
    assert all(is_image_name(name) for name in ("a.jpg", "A.JPEG", "dir/a.PnG", "a.b.webp", "a.tif", "-.pgm"))


def test_other_names_are_no_images() -> None:
    assert not any(is_image_name(name) for name in ("a.gif", "a.txt", "jpg", "a.jpg.part", "dir/._a.jpg", ".jpg"))
    hidden = (".git", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
    assert all(map(is_hidden, hidden))
    assert not any(map(is_hidden, ("cats", "_cats", "@home", "#1", "recycle", "snapshot", "System")))
