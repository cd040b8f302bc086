"""The published files of a data set: which lie there, whether they are what was published, and unpacking them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass

from imgcls.errors import DataError
from imgcls.schema import Finding


@dataclass(frozen=True)
class Archive:
    """A file as it is published.

    Attributes:
        name: of the file.
        md5: of its content, as published.
        into: folder below the root that its content belongs in.
    """

    name: str
    md5: str
    into: str


@dataclass(frozen=True)
class Files:
    """What torchvision expects below the root.

    Attributes:
        marker: the file or folder that shows that the data set is there ("{split}" stands for the split).
        parts: paths that must be there, of which the first one that is not is named.
        archives: the published files that all of this is made from.
    """

    marker: str
    parts: tuple[str, ...]
    archives: tuple[Archive, ...] = ()

    def is_there(self, root: str, split: str) -> bool:
        """Tell whether the data set is there, complete or not."""
        return os.path.exists(os.path.join(root, self.marker.format(split=split)))

    def lacks(self, root: str, split: str) -> str | None:
        """Return the first part that is missing; None when all are there."""
        paths = (os.path.join(root, part.format(split=split)) for part in self.parts)
        return next((path for path in paths if not os.path.exists(path)), None)


def published_file(root: str, archive: Archive) -> str | None:
    """Return the path of a published file, in the root or where torchvision would put it; None: not there."""
    paths = (os.path.join(root, archive.into, archive.name), os.path.join(root, archive.name))
    return next((path for path in paths if os.path.isfile(path)), None)


def unpack(name: str, root: str, files: Files, findings: list[Finding]) -> None:
    """Unpack the published archives into the root, as torchvision does after a download, if all of them lie there.

    Their hashes come first: what is in them may be pickles. Each is unpacked beside its place and moved there whole;
    what is in the way stays, and is said later to be incomplete.

    Raises:
        DataError: the root cannot be written, or the disk is full.
    """
    lying = [
        path for archive in files.archives if (path := published_file(root, archive)) and md5_of(path) == archive.md5
    ]
    if not lying or len(lying) < len(files.archives):
        return
    try:
        for path, archive in zip(lying, files.archives, strict=True):
            folder = os.path.join(root, archive.into)
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".imgcls-", dir=root) as temporary:
                if tarfile.is_tarfile(path):
                    with tarfile.open(path) as tar:
                        tar.extractall(temporary, filter="data")
                else:
                    shutil.copy(path, temporary)
                for entry in os.listdir(temporary):
                    os.rename(os.path.join(temporary, entry), os.path.join(folder, entry))
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return
        reason = (error.strerror or str(error)).lower()
        raise DataError(
            f"{name}: {lying[0]} cannot be unpacked there ({reason}): unpack it in a folder that can be written, and "
            f"type --data {name}:FOLDER"
        ) from error
    listed = ", ".join(os.path.basename(path) for path in lying)
    message = f"{name}: {listed} in {root} unpacked there"
    findings.append(Finding("unpacked", "note", message, "later runs find the files"))


def made_anew_by(root: str, files: Files) -> str | None:
    """Return how a damaged data set is made anew from the archive beside it; None: there is none."""
    if not files.archives or not all(os.path.isfile(os.path.join(root, archive.name)) for archive in files.archives):
        return None
    return f"remove {os.path.join(root, files.marker)}, and {files.archives[0].name} beside it is unpacked anew"


def what_lies_there(root: str, files: Files) -> str:
    """Return what of a data set's published files lies there, and what not."""
    lying = {archive: path for archive in files.archives if (path := published_file(root, archive))}
    spoilt = [path for archive, path in lying.items() if md5_of(path) != archive.md5]
    missing = [archive.name for archive in files.archives if archive not in lying]
    if spoilt:
        return f" ({spoilt[0]} is not the published file: its MD5 is another; download it again)"
    return f" ({', '.join(missing)} missing beside {next(iter(lying.values()))})" if lying and missing else ""


def md5_of(path: str) -> str:
    """Return the MD5 of a file's content, by which torchvision and the data sets' pages know them."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
