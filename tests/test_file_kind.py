"""A file that holds no weights is called what it is, with the way out, whatever command it was given to."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import tarfile
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from imgcls import checkpoint
from imgcls.errors import CheckpointError, Exit
from imgcls.file_kind import foreign


def tar() -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


def archive(*names: str) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return buffer.getvalue()


def saved(**options: bool) -> bytes:
    buffer = BytesIO()
    torch.save({"weight": torch.ones(1000)}, buffer, **options)
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = BytesIO()
    np.savez(buffer, weight=np.ones(3))
    return buffer.getvalue()


CASES = {
    "pointer.pth": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n",
        "Git LFS pointer",
        "lfs pull",
    ),
    "page.pth": (b"\n <!DOCTYPE html><html>", "is a web page", "download the file itself"),
    "answer.pth": (b"<?xml version='1.0'?><Error><Code>AccessDenied", "is a web page", "download the file itself"),
    "config.json": (b'\xef\xbb\xbf {"arch": "resnet18"}\n', "is a JSON file, not weights", "best.pt"),
    "answer.json": (b'{"error":"Not found"}\n', "is a JSON file, not weights", "download it again"),
    "empty.pth": (b"", "is empty", "get the file again"),
    "hollow.pth": (bytes(4096), "is filled with zeros", "get the file again"),
    "w.pth.gz": (gzip.compress(b"weights"), "is a gzip archive", "unpack it"),
    "w.pth.bz2": (bz2.compress(b"weights"), "is a bzip2 archive", "unpack it"),
    "w.pth.xz": (lzma.compress(b"weights"), "is an xz archive", "unpack it"),
    "w.tar": (tar(), "is a tar archive", "unpack it"),
    "w.zip": (archive("resnet/weights.pth"), "a zip archive of something else ('resnet/weights.pth')", "unpack it"),
    "cut.pth": (saved()[:3000], "is cut short: a zip archive without its end (3,000 bytes)", "get the file again"),
    "w.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file", "give weights of PyTorch"),
    "w.keras": (archive("config.json", "model.weights.h5"), "is a file of Keras", "give weights of PyTorch"),
    "saved_model.pb": (b"\x08\x01\x12\x00", "is a file of TensorFlow", "give weights of PyTorch"),
    "ckpt.data-00000-of-00001": (b"\x01\x02\xff\x03", "is a file of TensorFlow", "give weights of PyTorch"),
    "w.onnx": (b"\x08\x09\x12\x07pytorch", "is an ONNX file", "give the checkpoint or state dict"),
    "w.npz": (arrays(), "is an archive of NumPy arrays", "save a state dict"),
    "w.npy": (b"\x93NUMPY\x01\x00", "is a NumPy array", "save a state dict"),
    "w.pkl": (pickle.dumps({"weight": [1.0]}), "is a pickle of Python", "save a state dict"),
    "cat.png": (b"\x89PNG\r\n\x1a\n", "is a picture", "give a file of weights"),
    "noise.pth": (
        b"\xc3\x28\x01\xfe" * 100,
        "is no file of weights, or damaged at its beginning",
        "get the file again",
    ),
    "w.safetensors": (saved(), "is not the safetensors file that its name says", "rename it to .pth"),
    "module.pt": (
        archive("module/data.pkl", "module/constants.pkl", "module/code/__torch__.py"),
        "is a TorchScript file, not a state dict",
        ".state_dict(), 'weights.pth')",
    ),
    "program.pt2": (
        archive("program/archive_format", "program/models/model.json"),
        "is an exported program",
        "give the",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    content, what, way_out = CASES[name]
    path = tmp_path / name
    path.write_bytes(content)
    said = foreign(path)
    assert said is not None
    assert what in said
    assert way_out in said
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_tensors(path)
    assert str(caught.value) == f"{path}: {said}"


def test_the_files_that_torch_writes_are_not_foreign(tmp_path: Path) -> None:
    for new in (True, False):
        (tmp_path / "w.pth").write_bytes(saved(_use_new_zipfile_serialization=new))
        assert foreign(tmp_path / "w.pth") is None


def test_the_files_that_torch_itself_makes_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(module), tmp_path / "w.pt")
    torch.export.save(torch.export.export(module, (torch.zeros(1, 2),)), tmp_path / "w.pt2")
    assert "is a TorchScript file" in str(foreign(tmp_path / "w.pt"))
    assert "is an exported program" in str(foreign(tmp_path / "w.pt2"))


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "export", "info"])
def test_every_command_says_so_in_one_line(command: str, tmp_path: Path, colours: Path, run: object) -> None:
    path = tmp_path / "pointer.pth"
    path.write_bytes(CASES[path.name][0])
    arguments = {
        "train": ("--data", colours, "--weights", path, "--dry-run"),
        "predict": (colours, "--ckpt", path),
        "evaluate": ("--data", colours, "--ckpt", path),
        "export": ("--ckpt", path),
        "info": (path,),
    }[command]
    done = run(command, *arguments)  # type: ignore[operator]
    assert done.exit_code == Exit.CHECKPOINT
    assert done.stderr.endswith(
        f"error: {path}: is a Git LFS pointer, not the file itself; type git lfs pull where it was cloned\n"
    )
