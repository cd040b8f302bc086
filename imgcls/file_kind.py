"""What a file is that should hold weights, told by its first bytes: one of three kinds, or why it is refused.

Opens nothing but the table of a zip; knows no torch.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Literal

from imgcls.errors import CheckpointError

Weights = Literal["zip", "pickle", "safetensors"]  # kinds of files that can hold weights

HEAD = 512  # bytes that are looked at
TORCH_ZIP = b"PK\x03\x04"
TORCH_PICKLE = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before 1.6

_AGAIN = "get the file again"
_UNPACK = "unpack it and give the file of weights in it"
_SAVE = "in the program that made it, save a state dict of tensors with torch.save"

# Offset and bytes, what that is, and the way out.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "type git lfs pull where it was cloned"),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a rar archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, TensorFlow)", "give weights of PyTorch"),
    (4, b"TFL3", "a TensorFlow Lite file", "give weights of PyTorch"),
    (0, b"GGUF", "a GGUF file", "give weights of PyTorch"),
    (0, b"\x93NUMPY", "a NumPy array", _SAVE),
    (0, b"\x89PNG", "a picture", "give a file of weights"),
    (0, b"\xff\xd8\xff", "a picture", "give a file of weights"),
    (0, b"%PDF", "a PDF document", "give a file of weights"),
)
_TENSORFLOW = re.compile(r"\.(pb|index|meta|data-\d+-of-\d+)$")  # of a SavedModel or a checkpoint, which have no mark


def weights(path: str | os.PathLike[str]) -> Weights:
    """Tell the three kinds of files that can hold weights apart.

    Raises:
        CheckpointError: it is of another kind, which is named, or cannot be read.
    """
    try:
        if problem := foreign(path):
            raise CheckpointError(f"{path}: {problem}")
        if is_safetensors(path):
            return "safetensors"
        is_archive = _head(path).startswith(TORCH_ZIP)  # what torch goes by; older files are plain pickles
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CheckpointError(f"{path}: cannot be read ({reason}); give a file of tensors") from error
    if is_archive:
        _check_archive(path)
    return "zip" if is_archive else "pickle"


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file begins as safetensors does: the length of a JSON header, and that header."""
    head = _head(path)
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000


def foreign(path: str | os.PathLike[str]) -> str | None:
    """Say what a file is, if it is neither of torch.save nor safetensors, and what to do; None: it may be one.

    Returns:
        What follows the file's name in a sentence, such as "is empty; get the file again".

    Raises:
        OSError: it cannot be read.
    """
    head = _head(path)
    if Path(path).suffix == ".safetensors" and head.startswith((TORCH_ZIP, TORCH_PICKLE)):  # torch goes by that name
        return "is not the safetensors file that its name says, but one of torch.save; rename it to .pth"
    if head.startswith(TORCH_ZIP):
        return _foreign_zip(path)
    if is_safetensors(path):
        return None
    if not head.startswith(TORCH_PICKLE):
        what, way_out = _other(head, Path(path).name)
        return f"is {what}; {way_out}"
    return None


def _head(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _other(head: bytes, name: str) -> tuple[str, str]:
    for offset, mark, what, way_out in _SIGNATURES:
        if head.startswith(mark, offset):
            return what, way_out
    if not head:
        return "empty", _AGAIN
    if not any(head):
        return "filled with zeros", _AGAIN
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "a web page, not weights", "the address led to a page: download the file itself"
    if head[0] == 0x08 and (name.endswith(".onnx") or re.search(rb"onnx|pytorch", head[:64])):
        return "an ONNX file", "give the checkpoint or state dict that it was made from"
    if _TENSORFLOW.search(name):
        return "a file of TensorFlow", "give weights of PyTorch"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return (
            "a JSON file, not weights",
            "give the checkpoint (best.pt beside a run's config.json) or download it again",
        )
    if head[0] == 0x80 and 2 <= head[1] <= 5:  # opcode and number of a pickle's protocol
        return "a pickle of Python, which torch.save did not write", _SAVE
    line = head.decode("utf-8", "replace").partition("\n")[0].rstrip("\r")[:40]
    if line.isprintable() and "\ufffd" not in line and line:
        return f"text, not weights: it begins with {line!r}", "download the file itself"
    return "no file of weights, or damaged at its beginning", f"{_AGAIN}, or give one that torch.save wrote"


def _foreign_zip(path: str | os.PathLike[str]) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile raises anything on strangers' files
        if isinstance(error, zipfile.BadZipFile) and "not a zip file" in str(error):  # the table that ends every zip
            return f"is cut short: a zip archive without its end ({os.path.getsize(path):,} bytes); {_AGAIN}"
        return f"is a damaged zip archive ({' '.join(str(error).split())}); {_AGAIN}"
    inside = {name.partition("/")[2] for name in names}  # torch puts everything into one folder
    if "constants.pkl" in inside:
        return (
            "is a TorchScript file, not a state dict; if you trust it, type in Python: "
            f"torch.save(torch.jit.load({os.fspath(path)!r}).state_dict(), 'weights.pth')"
        )
    if "archive_format" in inside or "serialized_exported_program.json" in names:
        return "is an exported program (pt2), not a state dict; give the checkpoint or state dict that it was made from"
    if "data.pkl" in inside:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"is an archive of NumPy arrays (npz); {_SAVE}"
    if "model.weights.h5" in names:
        return "is a file of Keras; give weights of PyTorch"
    return f"is a zip archive of something else ({', '.join(map(repr, names[:2])) or 'empty'}); {_UNPACK}"


def _check_archive(path: str | os.PathLike[str]) -> None:
    """Hold the zip's table against the file: torch stores members uncompressed, so their sizes cannot exceed it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises anything on strangers' files
        raise CheckpointError(f"{path}: not a checkpoint ({error}); give one made by imgcls train") from error
    names = [member.filename for member in members]
    if len(set(names)) != len(names) or sum(member.file_size for member in members) > os.path.getsize(path):
        raise CheckpointError(f"{path}: not a checkpoint (its table of contents is forged); do not trust this file")
