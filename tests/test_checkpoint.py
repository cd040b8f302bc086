"""A checkpoint comes back as it was written, and a file that is none is refused before anything in it acts."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import io
import os
import pickle
import resource
import struct
import tracemalloc
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from imgcls import checkpoint
from imgcls.checkpoint import Checkpoint
from imgcls.errors import CheckpointError, Exit, UsageError, WriteError
from imgcls.schema import WITHIN_EPOCH, ModelCard, Preprocess, Pretrained

CARD = ModelCard(
    arch="resnet18",
    arch_options={"stem": "small", "dropout": 0.5},
    classes=("ant", "bee", "Käfer"),
    preprocess=Preprocess(size=32, resize=36, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
    pretrained=Pretrained(asked="auto", used=None, reason="the input of 32 px is below 96 px"),
    metrics={"held_out": True, "images": 10, "accuracy": 0.9, "accuracy_interval": [0.6, 0.98], "loss": 0.5},
    epoch=3,
    config={"epochs": 20, "lr": "auto"},
    data_fingerprint="abc",
    imgcls_version="0.1.0",
)


def example() -> Checkpoint:
    model = {"fc.weight": torch.arange(6.0).view(3, 2), "bn.num_batches_tracked": torch.tensor(4)}
    holdout, content = np.array([-5, 0, 2**62], dtype=np.int64), np.array([7, -(2**63), 8], dtype=np.int64)
    return Checkpoint(CARD, model, holdout, holdout_content=content)


def values() -> dict[str, Any]:
    """Give what the file of `example` holds, to be spoilt."""
    made = example()
    return CARD.to_dict() | {"model": made.model, "holdout": torch.from_numpy(made.holdout)}


def refused(path: Path, load: Callable[[Path], Any] = checkpoint.load) -> str:
    """Return the message with which a file is refused, which is one line."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert caught.value.exit_code == Exit.CHECKPOINT
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Writing and reading -------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    training = {
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "step": 12,
        "best": None,
        "history": [{"epoch": 1, "val_acc": 0.5}],
    }
    written = dataclasses.replace(example(), training=training)
    checkpoint.save(tmp_path / "last.pt", written)
    read = checkpoint.load(tmp_path / "last.pt")

    assert read.card == CARD
    assert read.model.keys() == written.model.keys()
    assert all(torch.equal(read.model[key], value) for key, value in written.model.items())
    assert read.holdout.dtype == np.int64
    np.testing.assert_array_equal(read.holdout, written.holdout)
    np.testing.assert_array_equal(read.holdout_content, written.holdout_content)
    assert read.training == training


def test_the_file_for_use_has_no_training_state_and_an_empty_hold_out_is_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best.pt", Checkpoint(CARD, {}, np.array([], dtype=np.int64)))
    read = checkpoint.load(str(tmp_path / "best.pt"))
    assert read.training == {}
    assert read.holdout.shape == (0,)


def test_parameters_are_written_as_plain_tensors(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    checkpoint.save(tmp_path / "best.pt", dataclasses.replace(example(), model={"weight": parameter}))
    assert not checkpoint.load(tmp_path / "best.pt").model["weight"].requires_grad


def test_the_file_is_a_torch_archive_of_primitives_and_tensors(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best.pt", example())
    read = torch.load(tmp_path / "best.pt", weights_only=True)
    assert set(read) == {*ModelCard.__dataclass_fields__, "model", "holdout", "holdout_content"}
    assert read["classes"] == ["ant", "bee", "Käfer"]


class Stopped(BaseException):
    """What a signal's handler raises in the middle of a write."""


@pytest.mark.parametrize("when", [1, 2, 5, 9])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), Stopped()])
def test_a_failed_write_leaves_the_older_file_and_nothing_else(
    failure: BaseException, when: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file and how many bytes it needs; the room of the temporary file is free by then."""
    path = tmp_path / "last.pt"
    checkpoint.save(path, example())
    before, left_open = path.read_bytes(), []

    class Full(io.FileIO):
        """A file whose n-th write fails, and each after it."""

        writes = 0

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            left_open.append(self)

        def write(self, content: Any) -> int:
            self.writes += 1
            if self.writes >= when:
                raise failure
            return super().write(content)

    unlink = Path.unlink

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        assert all(file.closed for file in left_open)
        unlink(path, missing_ok)

    with monkeypatch.context() as patch, pytest.raises((WriteError, Stopped)) as caught:
        patch.setattr(Path, "open", lambda path, mode, buffering: Full(path, mode))
        patch.setattr(Path, "unlink", unlinked)
        checkpoint.save(path, example())
    if isinstance(failure, OSError):
        needed = f"{len(before):,}"
        sentence = f"{path}: cannot write: no space left on device; free space: it needs {needed} bytes"
        assert str(caught.value) == sentence
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_full_disk_is_an_error_of_writing(tmp_path: Path) -> None:
    """A limit on the size of files does to torch's writer what a full disk does."""
    path = tmp_path / "last.pt"
    checkpoint.save(path, example())
    big = dataclasses.replace(example(), model={"weight": torch.zeros(1 << 21)})  # 8 MiB
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        words = r"last\.pt: cannot write: file too large; .*: it needs 8,39\d,\d{3} bytes"
        with pytest.raises(WriteError, match=words) as caught:
            checkpoint.save(path, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == Exit.WRITE
    assert checkpoint.load(path).card == CARD
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_folder_that_is_not_there_is_an_error_of_writing(tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        checkpoint.save(tmp_path / "missing" / "best.pt", example())


# Files that are none -------------------------------------------------------------------------------------------------


def test_a_missing_file_and_a_folder_are_errors_of_usage(tmp_path: Path) -> None:
    for path, problem in ((tmp_path / "best.pt", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(UsageError, match=problem) as caught:
            checkpoint.load(path)
        assert caught.value.exit_code == Exit.USAGE
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello\nworld\n", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x00" * 4096])
@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.load_tensors])
def test_a_file_of_something_else_is_refused(content: bytes, load: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    refused(path, load)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.load_tensors])
def test_a_truncated_file_is_refused(share: float, load: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    checkpoint.save(path, example())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, load)


def test_a_damaged_byte_anywhere_is_refused_or_harmless_and_never_a_traceback(tmp_path: Path) -> None:
    """The zip's table above all: a few hundred single bytes, each set to another value."""
    path = tmp_path / "best.pt"
    checkpoint.save(path, example())
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    places = [*range(len(whole) - 300, len(whole)), *generator.integers(0, len(whole), 200).tolist()]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            checkpoint.load(path)
        except CheckpointError as error:
            assert "\n" not in str(error)


def test_a_flipped_bit_in_the_weights_is_refused(tmp_path: Path) -> None:
    """Torch itself would load other weights, and the figures of the right ones would stand beside them."""
    path = tmp_path / "best.pt"
    saved = example()
    checkpoint.save(path, saved)
    whole = bytearray(path.read_bytes())
    tensor = next(iter(saved.model.values()))
    whole[whole.index(tensor.numpy().tobytes())] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"damaged \(the checksum of .*/data/\d+ is wrong\); use another copy"):
        checkpoint.load(path)


@pytest.mark.parametrize("reader", ["torch.load", "zipfile.ZipFile.testzip"])
def test_memory_that_runs_out_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9437184 bytes")

    checkpoint.save(tmp_path / "best.pt", example())
    monkeypatch.setattr(reader, fails)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        checkpoint.load(tmp_path / "best.pt")


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photographs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat.jpg", b"not a tensor")
    for load in (checkpoint.load, checkpoint.load_tensors):
        refused(path, load)


def test_a_bare_state_dict_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(example().model, path)
    assert "not an imgcls checkpoint" in refused(path)


def test_something_other_than_a_dict_is_named(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    assert "holds list, not a dict" in refused(tmp_path / "list.pt", checkpoint.load_tensors)


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    newer = dataclasses.replace(CARD, format=WITHIN_EPOCH + 1, imgcls_version="9.0")
    checkpoint.save(path, dataclasses.replace(example(), card=newer))
    assert "written by imgcls 9.0, which is newer: update imgcls" in refused(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(bad: float, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    checkpoint.save(path, dataclasses.replace(example(), model={"a": torch.ones(2), "b": torch.tensor([1.0, bad])}))
    assert "b has NaN or infinite values" in refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "1"),
        ("arch", 18),
        ("arch_options", ["small"]),
        ("classes", "ant"),
        ("classes", []),
        ("classes", ["ant", 7]),
        ("preprocess", {"size": 32}),
        ("preprocess", dataclasses.asdict(dataclasses.replace(CARD.preprocess)) | {"size": 32.5}),
        ("preprocess", dataclasses.asdict(dataclasses.replace(CARD.preprocess)) | {"size": "32"}),
        ("preprocess", dataclasses.asdict(dataclasses.replace(CARD.preprocess)) | {"std": (0.0, 1.0, 1.0)}),
        ("preprocess", dataclasses.asdict(dataclasses.replace(CARD.preprocess)) | {"mean": (0.5,)}),
        ("preprocess", dataclasses.asdict(dataclasses.replace(CARD.preprocess)) | {"mean": ("a", "b", "c")}),
        ("preprocess", dataclasses.asdict(dataclasses.replace(CARD.preprocess)) | {"rule": "cut"}),
        ("pretrained", None),
        ("metrics", 0.5),
        ("epoch", "three"),
        ("model", [torch.zeros(2)]),
        ("model", {"fc.weight": [1.0]}),
        ("model", {5: torch.zeros(2)}),
        ("model", {"fc.weight": torch.zeros(2, device="meta")}),
        ("model", {"fc.weight": torch.zeros(2, dtype=torch.complex64)}),
        ("holdout", [1, 2]),
        ("holdout", torch.zeros(2, device="meta")),
        ("holdout_content", [1, 2]),
        ("holdout_content", torch.zeros(2, dtype=torch.int64)),
        ("holdout_content", torch.zeros(3)),
        ("holdout_content", torch.zeros(3, dtype=torch.int64, device="meta")),
    ],
)
def test_a_forged_card_is_refused_where_it_is_read(key: str, value: Any, tmp_path: Path) -> None:
    torch.save(values() | {key: value}, tmp_path / "forged.pt")
    refused(tmp_path / "forged.pt")


@pytest.mark.parametrize("key", sorted({*ModelCard.__dataclass_fields__, "model", "holdout"} - {"run"}))
def test_a_missing_entry_is_named(key: str, tmp_path: Path) -> None:
    spoilt = values()
    del spoilt[key]
    torch.save(spoilt, tmp_path / "best.pt")
    assert f"no '{key}'" in refused(tmp_path / "best.pt")


# Files that would do harm --------------------------------------------------------------------------------------------


class Harm:
    """Pickles into a call that makes a folder, as a malicious file would run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("variable", ["", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.load_tensors])
def test_nothing_in_a_file_runs(
    variable: str, form: str, load: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    path, mark = tmp_path / "stranger.pt", tmp_path / "mark"
    bad = values() | {"config": {"lr": Harm(mark)}}
    if form == "pickle":
        path.write_bytes(pickle.dumps(bad))
    else:
        torch.save(bad, path, _use_new_zipfile_serialization=form == "zip")
    message = refused(path, load)
    if form == "zip":
        assert "it holds more than tensors and plain values" in message
    assert not mark.exists()
    torch.load(path, weights_only=False) if form == "zip" else None
    assert mark.exists() == (form == "zip")  # the file is as bad as it claims to be


class Settings:
    """A plain class of somebody's script."""


LEFT_BESIDE = {
    "args": argparse.Namespace(lr=0.1, out=Path("out"), inner=argparse.Namespace()),
    "space": types.SimpleNamespace(lr=0.1),
    "best": np.float64(0.9),
    "curve": np.arange(3),
    "when": datetime.datetime(2026, 1, 2),
    "history": collections.defaultdict(list, {"loss": [0.1]}),
    "torch": torch.__version__,
}


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_leave_beside_the_weights_is_set_aside(zipped: bool, tmp_path: Path) -> None:
    """Nothing of it is made: neither their classes nor their values come back."""
    path, weight = tmp_path / "stranger.pth", torch.arange(6.0)
    torch.save({"model": {"weight": weight}, **LEFT_BESIDE}, path, _use_new_zipfile_serialization=zipped)
    allowed = set(torch.serialization.get_safe_globals())
    read = checkpoint.load_tensors(path)
    assert set(torch.serialization.get_safe_globals()) == allowed
    assert torch.equal(read["model"]["weight"], weight)
    for name in LEFT_BESIDE.keys() - {"history"}:
        assert type(read[name]).__module__ == "imgcls.checkpoint", name
        assert not vars(read[name])
    assert type(read["history"]) is dict
    assert "it holds more than tensors and plain values: " in refused(path, checkpoint._load)  # a checkpoint has none


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_runs_in_what_is_set_aside(zipped: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "stranger.pth"
    torch.save({"args": argparse.Namespace(lr=Harm(mark))}, path, _use_new_zipfile_serialization=zipped)
    assert "posix.mkdir" in refused(path, checkpoint.load_tensors)
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_whole_pickled_model_is_called_that(zipped: bool, wrapped: bool, tmp_path: Path) -> None:
    path, model = tmp_path / "model.pth", torch.nn.Sequential(torch.nn.Linear(2, 2))
    torch.save({"epoch": 3, "model": model} if wrapped else model, path, _use_new_zipfile_serialization=zipped)
    for load in (checkpoint.load, checkpoint.load_tensors):
        message = refused(path, load)
        assert "holds a whole pickled model" in message
        assert "torch.nn.modules.container.Sequential" in message
        assert "torch.save(model.state_dict(), 'weights.pth')" in message


def test_an_object_that_cannot_be_read_safely_is_named(tmp_path: Path) -> None:
    torch.save({"settings": Settings()}, tmp_path / "w.pth")
    assert f": {__name__}.Settings)" in refused(tmp_path / "w.pth", checkpoint.load_tensors)
    torch.save({"weight": torch.ones(2)}, tmp_path / "w.pth", pickle_protocol=4)
    assert "another pickle protocol" in refused(tmp_path / "w.pth", checkpoint.load_tensors)


def test_weights_without_a_card_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    torch.save(example().model, path, _use_new_zipfile_serialization=False)
    assert "start from its weights with imgcls train --weights" in refused(path)
    path.write_bytes(safetensors.torch.save(example().model))
    assert "start from its weights with imgcls train --weights" in refused(path)


def test_memory_that_an_old_file_asks_for_and_does_not_fill_is_refused(tmp_path: Path) -> None:
    """256 MiB named in 1 kB, in a list of storages to read that is empty: torch reserves them and reads nothing."""
    path = tmp_path / "old.pth"
    torch.save({"weight": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    raw = path.read_bytes()
    place = raw.index(b"X\x03\x00\x00\x00cpu")
    number = raw.index(b"K\x04", place)  # of elements
    raw = raw[:number] + b"J" + struct.pack("<i", 1 << 26) + raw[number + 2 :]
    end = raw.rindex(b"\x80\x02]")
    path.write_bytes(raw[:end] + b"\x80\x02].")
    assert path.stat().st_size < 1024
    assert "names larger tensors than it holds" in refused(path, checkpoint.load_tensors)


@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.load_tensors])
def test_a_zip_bomb_is_refused_in_little_memory(load: Callable[[Path], Any], tmp_path: Path) -> None:
    """256 MiB of zeros in 0.3 MB: torch's reader would inflate them."""
    honest, bomb = tmp_path / "honest.pt", tmp_path / "bomb.pt"
    torch.save(values() | {"model": {"weight": torch.zeros(1 << 26)}}, honest)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    honest.unlink()
    assert bomb.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "its table of contents is forged" in refused(bomb, load)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # kB


@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.load_tensors])
def test_sizes_that_lie_are_refused(load: Callable[[Path], Any], tmp_path: Path) -> None:
    """The first entry of the table claims almost 4 GiB."""
    path = tmp_path / "best.pt"
    checkpoint.save(path, example())
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.index(b"PK\x01\x02") + 24, 0xFFFFFFF0)
    path.write_bytes(raw)
    assert "its table of contents is forged" in refused(path, load)


@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.load_tensors])
def test_members_that_appear_twice_are_refused(load: Callable[[Path], Any], tmp_path: Path) -> None:
    """Which of the two is read is up to the reader: one program may check what another does not load."""
    path = tmp_path / "best.pt"
    checkpoint.save(path, example())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"another")
    assert "its table of contents is forged" in refused(path, load)


def test_a_tensor_without_bytes_of_its_own_is_refused_in_little_memory(tmp_path: Path) -> None:
    """One number stretched to a million million: 1 kB in the file, 4 TB when touched."""
    path = tmp_path / "best.pt"
    torch.save(values() | {"model": {"weight": torch.zeros(1).expand(10**12)}}, path)
    assert path.stat().st_size < 10_000
    tracemalloc.start()
    try:
        assert "weight is no plain tensor" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_older_torch_files_can_be_read_as_tensors(tmp_path: Path) -> None:
    """Some published weights are not zip archives."""
    torch.save(example().model, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    read = checkpoint.load_tensors(tmp_path / "old.pth")
    assert torch.equal(read["fc.weight"], example().model["fc.weight"])


def test_an_older_checkpoint_has_no_content_of_its_hold_out(tmp_path: Path) -> None:
    torch.save(values(), tmp_path / "older.pt")
    read = checkpoint.load(tmp_path / "older.pt")
    np.testing.assert_array_equal(read.holdout, example().holdout)
    assert read.holdout_content.shape == (0,)
    checkpoint.save(tmp_path / "again.pt", read)
    assert checkpoint.load(tmp_path / "again.pt").holdout_content.shape == (0,)


def test_weights_saved_within_an_epoch_are_not_called_those_of_the_one_before() -> None:
    assert dataclasses.replace(CARD, epoch=3).reached == "epoch 3"
    assert dataclasses.replace(CARD, epoch=3, format=WITHIN_EPOCH).reached == "within epoch 4"
