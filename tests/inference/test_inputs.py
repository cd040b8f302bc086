"""What the user names becomes a stream of paths: nothing twice, nothing silently left out."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from imgcls.errors import UsageError
from imgcls.inference.inputs import expand, is_hidden, is_image_name, walk


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


def below(root: Path, paths: Iterable[str | None]) -> list[str]:
    return [os.path.relpath(path, root) for path in paths if path is not None]


def test_a_folder_gives_its_images_in_sorted_order(folder: Path) -> None:
    assert below(folder, expand([str(folder)])) == ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tiff"]


def test_arguments_keep_their_order_and_files_any_name(folder: Path) -> None:
    arguments = [str(folder / "sub"), str(folder / "notes.txt"), "missing.jpg"]
    assert list(expand(arguments)) == [
        *(str(folder / "sub/c.webp"), str(folder / "sub/deep/d.tiff")),
        *(str(folder / "notes.txt"), "missing.jpg"),  # they become rows with an error
    ]


def test_globs_are_expanded_where_the_shell_did_not(folder: Path) -> None:
    assert below(folder, expand([f"{folder}/*.jpg"])) == ["b.jpg"]
    assert below(folder, expand([f"{folder}/**/*.[tw]*"])) == ["notes.txt", "sub/c.webp", "sub/deep/d.tiff"]
    assert list(expand([f"{folder}/*.bmp"])) == []


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    make(tmp_path, "cat[1].jpg", "cat1.jpg")
    assert below(tmp_path, expand([str(tmp_path / "cat[1].jpg")])) == ["cat[1].jpg"]


def test_a_folder_of_a_pattern_may_hold_brackets(tmp_path: Path) -> None:
    """What exists as it is written is no pattern: [1] would stand for 1."""
    make(tmp_path, "set [1]/a.jpg", "set [1]/b/[2]/c.jpg", "set 1/d.jpg")
    assert below(tmp_path, expand([f"{tmp_path}/set [1]/*.jpg"])) == ["set [1]/a.jpg"]
    assert below(tmp_path, expand([f"{tmp_path}/set [1]/**/*.jpg"])) == ["set [1]/a.jpg", "set [1]/b/[2]/c.jpg"]
    assert below(tmp_path, expand([f"{tmp_path}/set [1-9]/*.jpg"])) == ["set 1/d.jpg"]


def test_a_pattern_for_folders_gives_what_is_in_them_as_in_a_shell(folder: Path) -> None:
    assert below(folder, expand([f"{folder}/s*"])) == ["sub/c.webp", "sub/deep/d.tiff"]
    assert below(folder, expand([f"{folder}/*"])) == ["a.PNG", "b.jpg", "notes.txt", "sub/c.webp", "sub/deep/d.tiff"]


def test_what_file_servers_leave_behind_is_left_out_and_told(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "@eaDir/a.jpg/THUMB.jpg", "sub/@eaDir/x.jpg", "sub/#recycle/y.jpg", "sub/b.jpg")
    for argument in (tmp_path, f"{tmp_path}/*", f"{tmp_path}/**/*.jpg"):
        told: list[str] = []
        assert below(tmp_path, expand([str(argument)], on_hidden=told.append)) == ["a.jpg", "sub/b.jpg"]
        assert {"@eaDir", "sub/@eaDir", "sub/#recycle"} <= set(below(tmp_path, told))
    assert below(tmp_path, expand([f"{tmp_path}/@eaDir"])) == ["@eaDir/a.jpg/THUMB.jpg"]


def test_nul_bytes_without_the_option_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="-: standard input holds NUL bytes: type -0 if they end paths"):
        list(expand(["-"], io.BytesIO(b"a.jpg\0b.jpg\0")))


def test_standard_input_gives_one_path_per_line() -> None:
    stdin = io.BytesIO(b"a.jpg\n with space.jpg\n\n-dash.jpg\nlast.jpg")
    assert [path for path in expand(["first.jpg", "-"], stdin) if path is not None] == [
        *("first.jpg", "a.jpg", " with space.jpg", "-dash.jpg", "last.jpg"),
    ]


def test_nul_separated_paths_may_hold_newlines_and_any_bytes() -> None:
    stdin = io.BytesIO(b"new\nline.jpg\0caf\xe9.jpg\0")
    paths = [path for path in expand(["-"], stdin, null_separated=True) if path is not None]
    assert paths == ["new\nline.jpg", os.fsdecode(b"caf\xe9.jpg")]


def test_a_slow_writer_gets_its_paths_through_as_it_writes() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stdin:
        paths = expand(["-"], stdin)
        os.write(writer, b"a.jpg\nb.j")
        assert next(paths) == "a.jpg"
        assert next(paths) is None  # time to answer
        os.write(writer, b"pg\n")
        assert next(paths) == "b.jpg"
        os.close(writer)
        assert list(paths) == [None]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "real/a.jpg", "outside/b.jpg")
    root = tmp_path / "real"
    (root / "again").symlink_to(root)
    (root / "elsewhere").symlink_to(tmp_path / "outside")
    (root / "twice").symlink_to(tmp_path / "outside")
    assert below(root, expand([str(root)])) == ["a.jpg", "elsewhere/b.jpg"]


def test_links_to_nowhere_and_to_themselves_are_passed_on(tmp_path: Path) -> None:
    """They become rows with an error of their own."""
    (tmp_path / "dangling.jpg").symlink_to("gone")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    make(tmp_path, "z.jpg")
    assert below(tmp_path, expand([str(tmp_path)])) == ["dangling.jpg", "itself.jpg", "z.jpg"]


def test_special_files_and_folders_with_an_image_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    make(tmp_path, "folder.jpg/a.png")
    assert below(tmp_path, expand([str(tmp_path)])) == ["pipe.jpg", "folder.jpg/a.png"]


def test_a_folder_that_cannot_be_read_shows_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "open/a.jpg", "closed/b.jpg")
    scandir = os.scandir

    def guarded(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert below(tmp_path, walk(str(tmp_path))) == ["closed", "open/a.jpg"]
    assert below(tmp_path, expand([str(tmp_path)])) == ["closed", "open/a.jpg"]


def test_standard_input_says_when_nothing_more_has_come_yet() -> None:
    class Slow(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return self.readline()  # one path at a time, as from a slow producer

    assert list(expand(["-"], Slow(b"a.jpg\nb.jpg\n"))) == ["a.jpg", None, "b.jpg", None]


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
    assert sorted(below(tmp_path, expand([str(tmp_path)]))) == sorted(odd)


def test_image_names_are_known_by_their_extension() -> None:
    assert all(is_image_name(name) for name in ("a.jpg", "A.JPEG", "dir/a.PnG", "a.b.webp", "a.tif", "-.pgm"))


def test_other_names_are_no_images() -> None:
    assert not any(is_image_name(name) for name in ("a.gif", "a.txt", "jpg", "a.jpg.part", "dir/._a.jpg", ".jpg"))
    hidden = (".git", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
    assert all(map(is_hidden, hidden))
    assert not any(map(is_hidden, ("cats", "_cats", "@home", "#1", "recycle", "snapshot", "System")))
