"""Data sets by name, each from a tiny copy in its original layout that the test makes. Never the network."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import socket
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from imgcls import download
from imgcls.data import torchvision_sets
from imgcls.data.splits import for_evaluation, for_training, open_source
from imgcls.errors import DataError, UsageError
from imgcls.registry import DATASETS, resolve

RANDOM = np.random.default_rng(0)
COLOUR = (10, 200, 30)  # of the first picture of each split: channels and axes must not be swapped


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str) -> Any:
        raise OSError(f"no network in tests: {url}")

    monkeypatch.setattr(torchvision_sets, "open_url", unreachable)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def pictures(count: int, side: int) -> Any:
    """uint8 [count, side, side, 3]; the first is of one colour with a white pixel in the top right corner."""
    pixels = RANDOM.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    pixels[0] = COLOUR
    pixels[0, 0, -1] = 255
    return pixels


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def jpeg(path: Path) -> None:
    file = io.BytesIO()
    pixels = np.full((12, 16, 3), COLOUR, dtype=np.uint8)
    pixels[:4, -4:] = 255
    Image.fromarray(pixels).save(file, "JPEG", quality=100, subsampling=0)
    write(path, file.getvalue())


def make_cifar(dataset: Any, fine: bool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, key = root / dataset.base_folder, "fine_labels" if fine else "labels"
    for table in ("train_list", "test_list"):
        entries = []
        for name, _ in getattr(dataset, table):
            data = pictures(2, 32).transpose(0, 3, 1, 2).reshape(2, -1)
            path = write(folder / name, pickle.dumps({"data": data, key: [3, 1]}))
            entries.append([name, md5(path)])
        monkeypatch.setattr(dataset, table, entries)
    count = 100 if fine else 10
    meta = dataset.meta | {}
    names = pickle.dumps({meta["key"]: [f"class {number}" for number in range(count)]})
    monkeypatch.setattr(dataset, "meta", meta | {"md5": md5(write(folder / meta["filename"], names))})


def make_mnist(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 3), ("t10k", 2)):
        grey = RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        grey[0], grey[0, 0, -1] = 77, 255
        head = b"".join(number.to_bytes(4, "big") for number in (0x803, count, 28, 28))
        write(root / name / "raw" / f"{split}-images-idx3-ubyte", head + grey.tobytes())
        labels = bytes([3, 1, 9][:count])
        head = b"".join(number.to_bytes(4, "big") for number in (0x801, count))
        write(root / name / "raw" / f"{split}-labels-idx1-ubyte", head + labels)


def make_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    table = {}
    for split, entry in datasets.SVHN.split_list.items():
        path = root / entry[1]
        root.mkdir(parents=True, exist_ok=True)
        labels = np.array([[3], [10], [9]], dtype=np.uint8)  # 10 stands for the digit 0
        savemat(path, {"X": pictures(3, 32).transpose(1, 2, 3, 0), "y": labels})
        table[split] = [entry[0], entry[1], md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", table)


def make_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "stl10_binary"
    write(folder / "class_names.txt", "\n".join(f"class {number}" for number in range(10)).encode())
    tables: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
    for split, table in (("train", "train_list"), ("test", "test_list"), ("unlabeled", "train_list")):
        for part in ("X", "y"):
            if (split, part) == ("unlabeled", "y"):
                continue
            content = pictures(3, 96).transpose(0, 3, 2, 1).tobytes() if part == "X" else bytes([4, 2, 10])
            path = write(folder / f"{split}_{part}.bin", content)
            tables[table].append([path.name, md5(path)])
    for table, entries in tables.items():
        monkeypatch.setattr(datasets.STL10, table, entries)


def make_food101(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "food-101"
    for split, numbers in (("train", (1, 2)), ("test", (3,))):
        listed = {name: [f"{name}/{number}" for number in numbers] for name in ("apple_pie", "waffles")}
        write(folder / "meta" / f"{split}.json", json.dumps(listed).encode())
        for entry in (entry for entries in listed.values() for entry in entries):
            jpeg(folder / "images" / f"{entry}.jpg")


def make_pets(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "oxford-iiit-pet"
    for split, number in (("trainval", 1), ("test", 2)):
        lines = []
        for label, name in enumerate(("Abyssinian", "american_bulldog"), start=1):
            lines.append(f"{name}_{number} {label} 1 1")
            jpeg(folder / "images" / f"{name}_{number}.jpg")
        write(folder / "annotations" / f"{split}.txt", "\n".join(lines).encode())


def make_flowers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    folder = root / "flowers-102"
    for number in range(1, 7):
        jpeg(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": [[4, 4, 2, 102, 4, 1]]})
    savemat(folder / "setid.mat", {"trnid": [[1, 4]], "valid": [[2, 5]], "tstid": [[3, 6]]})
    table = dict(datasets.Flowers102._file_dict)
    for key in ("label", "setid"):
        table[key] = (table[key][0], md5(folder / table[key][0]))
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", table)


MAKERS: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "cifar10": lambda root, patch: make_cifar(datasets.CIFAR10, False, root, patch),
    "cifar100": lambda root, patch: make_cifar(datasets.CIFAR100, True, root, patch),
    "mnist": lambda root, patch: make_mnist("MNIST", root, patch),
    "fashion-mnist": lambda root, patch: make_mnist("FashionMNIST", root, patch),
    "svhn": make_svhn,
    "stl10": make_stl10,
    "food101": make_food101,
    "oxford-pets": make_pets,
    "flowers102": make_flowers,
}

# training images and their first labels, test images and their first labels, number of classes
EXPECTED = {
    "cifar10": (10, [3, 1], 2, [3, 1], 10),
    "cifar100": (2, [3, 1], 2, [3, 1], 100),
    "mnist": (3, [3, 1, 9], 2, [3, 1], 10),
    "fashion-mnist": (3, [3, 1, 9], 2, [3, 1], 10),
    "svhn": (3, [3, 0, 9], 3, [3, 0, 9], 10),
    "stl10": (3, [3, 1, 9], 3, [3, 1, 9], 10),
    "food101": (4, [0, 0, 1, 1], 2, [0, 1], 2),
    "oxford-pets": (2, [0, 1], 2, [0, 1], 2),
    "flowers102": (2, [3, 101], 2, [1, 0], 102),
}


def test_every_name_is_tested() -> None:
    assert list(MAKERS) == list(EXPECTED) == list(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_is_read_from_its_original_layout(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root:with colon"
    MAKERS[name](root, monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    source = open_source(f"{name}:{root}")
    assert source.dataset == name
    assert sorted(source.splits) == (["test", "train", "val"] if name == "flowers102" else ["test", "train"])
    train_count, train_labels, test_count, test_labels, classes = EXPECTED[name]
    for split, count, labels in (("train", train_count, train_labels), ("test", test_count, test_labels)):
        listing = source.splits[split]()
        assert len(listing.images) == len(listing.labels) == count
        assert listing.labels.dtype == np.int64
        assert listing.labels[: len(labels)].tolist() == labels
        assert len(listing.classes) == classes
        assert all(type(class_name) is str for class_name in listing.classes)
        picture = listing.images.load(0).astype(int)
        expected = (77, 77, 77) if "mnist" in name else COLOUR
        assert abs(picture[-1, 0] - expected).max() <= 3
        assert picture[0, -1].min() > 250, "the white corner is at the top right"
        assert listing.images.size(0) == picture.shape[1::-1]
        assert len(listing.images.fingerprint()) == 16
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written into the data folder"


def test_classes_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def classes(name: str) -> tuple[str, ...]:
        MAKERS[name](tmp_path / name, monkeypatch)
        return resolve(DATASETS[name])(str(tmp_path / name)).splits["test"]().classes  # type: ignore[no-any-return]

    assert classes("svhn") == tuple("0123456789")
    assert classes("fashion-mnist")[9] == "Ankle boot"
    assert classes("oxford-pets") == ("Abyssinian", "American Bulldog")
    assert classes("food101") == ("apple_pie", "waffles")
    assert classes("cifar100")[42] == "class 42"


def test_training_holds_some_out_and_evaluation_takes_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_food101(tmp_path, monkeypatch)
    source = f"food101:{tmp_path}"
    splits = for_training(source, val_split=0.5, seed=0)
    assert splits.dataset == "food101"
    assert splits.val is not None
    assert (splits.train.counts().tolist(), splits.val.counts().tolist()) == ([1, 1], [1, 1])
    split, listing = for_evaluation(source, splits.classes, split=None, holdout=splits.holdout)
    assert (split, len(listing.images)) == ("test", 2)
    split, listing = for_evaluation(source, splits.classes, split="val", holdout=splits.holdout)
    assert [listing.images.name(i) for i in range(2)] == [splits.val.images.name(i) for i in range(2)]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which this machine serves it."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setattr(torchvision_sets, "open_url", download.open_url)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Bomb:
    """Unpickling one makes a file, as an attacker's would run a program."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("part", ["train", "test", "meta"])
def test_a_tampered_batch_is_refused_before_it_is_unpickled(
    name: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, proof = tmp_path / "data", tmp_path / "unpickled"
    MAKERS[name](root, monkeypatch)
    dataset: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    file = dataset.meta["filename"] if part == "meta" else getattr(dataset, f"{part}_list")[0][0]
    (root / dataset.base_folder / file).write_bytes(pickle.dumps(Bomb(proof)))
    with pytest.raises(DataError, match=rf"{name}: files in .* are damaged or incomplete .*: replace them") as caught:
        open_source(f"{name}:{root}").splits["train"]()
    assert caught.value.exit_code == 3
    assert not proof.exists()


@pytest.mark.parametrize("name", DATASETS)
def test_a_damaged_data_set_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS[name](tmp_path, monkeypatch)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".jpg":
            path.write_bytes(path.read_bytes()[:9])
    with warnings.catch_warnings(), pytest.raises(DataError, match=f"{name}: files in .* are damaged or incomplete"):
        warnings.simplefilter("ignore")
        open_source(f"{name}:{tmp_path}").splits["train"]()


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_data_set_without_network_fails_and_makes_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{name}: not in .*, and the download failed \(no network in tests: http"):
        open_source(f"{name}:{tmp_path / 'data'}").splits["train"]()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", DATASETS)
def test_the_first_look_at_the_network_asks_for_a_real_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror's folder answers 403 or 404, and the download would never be tried."""
    asked: list[str] = []

    def refuse(url: str) -> Any:
        asked.append(url)
        raise OSError("refused")

    monkeypatch.setattr(torchvision_sets, "open_url", refuse)
    with pytest.raises(DataError):
        open_source(f"{name}:{tmp_path}").splits["train"]()
    assert asked[0].endswith((".gz", ".tgz", ".mat"))


def test_a_name_server_that_never_answers_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*arguments: Any, **options: Any) -> Any:
        released.wait(30)
        raise OSError("too late")

    monkeypatch.setattr(torchvision_sets, "open_url", download.open_url)
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"cifar10: not in .*no answer within 0\.2 s"):
        open_source(f"cifar10:{tmp_path / 'data'}").splits["train"]()
    assert time.monotonic() - start < 15
    assert os.listdir(tmp_path) == []
    released.set()


def test_a_missing_data_set_is_downloaded_and_says_so_on_stderr(
    tmp_path: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, address = mirror
    make_cifar(datasets.CIFAR10, False, tmp_path / "origin", monkeypatch)
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "origin" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    monkeypatch.setattr(datasets.CIFAR10, "url", address + archive.name)
    unpack = datasets.CIFAR10.download

    def talkative(dataset: Any) -> None:  # as some versions of torchvision are
        print("Extracting")
        unpack(dataset)

    monkeypatch.setattr(datasets.CIFAR10, "download", talkative)
    before = socket.getdefaulttimeout()
    listing = open_source(f"cifar10:{tmp_path / 'data'}").splits["train"]()
    assert len(listing.images) == 10
    output = capsys.readouterr()
    assert (output.out, "Extracting" in output.err) == ("", True), "standard output is for results"
    assert socket.getdefaulttimeout() == before


def test_mnist_is_downloaded_file_by_file(
    tmp_path: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    make_mnist("MNIST", tmp_path / "origin", monkeypatch)
    resources = []
    for name, _ in datasets.MNIST.resources:
        content = (tmp_path / "origin/MNIST/raw" / name.removesuffix(".gz")).read_bytes()
        resources.append((name, md5(write(folder / name, gzip.compress(content)))))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    assert len(open_source(f"mnist:{tmp_path / 'data'}").splits["test"]().images) == 2


@pytest.mark.parametrize("name", ["svhn", "flowers102"])
def test_a_missing_scipy_gives_the_extras_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS[name](tmp_path, monkeypatch)
    for module in [module for module in sys.modules if module.startswith("scipy.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UsageError) as caught:
        open_source(f"{name}:{tmp_path}").splits["train"]()
    assert str(caught.value) == "scipy is not installed: type pip install 'imgcls[datasets]'"


def test_without_a_root_it_is_in_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_food101(Path("data"), monkeypatch)
    assert len(open_source("food101").splits["train"]().images) == 4


def test_a_folder_of_that_name_wins_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jpeg(Path("food101/cat/1.jpg"))
    source = open_source("food101")
    assert source.dataset is None
    assert source.flat
    assert [note.code for note in source.notes] == ["folder-wins"]


# Archives in the root, as they were downloaded -----------------------------------------------------------------------


def pack(archive: Path, *folders: Path) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for folder in folders:
            tar.add(folder, folder.name)
    return archive


def publish(name: str, origin: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Make a data set's published archives in `root`, and have torchvision know their hashes."""
    MAKERS[name](origin, monkeypatch)
    if name in ("cifar10", "cifar100", "stl10"):
        dataset: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "stl10": datasets.STL10}[name]
        archive = pack(root / dataset.filename, origin / dataset.base_folder)
        monkeypatch.setattr(dataset, "tgz_md5", md5(archive))
        return [archive]
    if name == "food101":
        archive = pack(root / "food-101.tar.gz", origin / "food-101")
        monkeypatch.setattr(datasets.Food101, "_MD5", md5(archive))
        return [archive]
    if name == "oxford-pets":
        packed = {
            part: pack(root / f"{part}.tar.gz", origin / "oxford-iiit-pet" / part) for part in ("images", "annotations")
        }
        resources = tuple((f"https://host/{path.name}", md5(path)) for path in packed.values())
        monkeypatch.setattr(datasets.OxfordIIITPet, "_RESOURCES", resources)
        return list(packed.values())
    archive = pack(root / "102flowers.tgz", origin / "flowers-102/jpg")
    table = datasets.Flowers102._file_dict | {"image": (archive.name, md5(archive))}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", table)
    tables = [
        write(root / entry, (origin / "flowers-102" / entry).read_bytes()) for entry in ("imagelabels.mat", "setid.mat")
    ]
    return [archive, *tables]


ARCHIVED = ("cifar10", "cifar100", "stl10", "food101", "oxford-pets", "flowers102")


@pytest.mark.parametrize("name", ARCHIVED)
def test_archives_in_the_root_are_unpacked_and_this_is_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    archives = publish(name, tmp_path / "origin", root, monkeypatch)
    listing = open_source(f"{name}:{root}").splits["test"]()
    assert listing.labels[: len(EXPECTED[name][3])].tolist() == EXPECTED[name][3]
    (note,) = listing.findings
    assert (note.code, note.severity) == ("unpacked", "note")
    assert archives[0].name in note.message
    assert all(path.is_file() for path in archives)
    assert not list(root.glob(".imgcls-*"))
    assert open_source(f"{name}:{root}").splits["train"]().findings == (), "once is enough"


@pytest.mark.parametrize("name", ARCHIVED)
def test_an_archive_that_is_not_the_published_one_is_not_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    spoilt = publish(name, tmp_path / "origin", root, monkeypatch)[0]
    spoilt.write_bytes(spoilt.read_bytes() + b"more")
    before = sorted(root.rglob("*"))
    with pytest.raises(DataError, match=rf"not in .* \({spoilt} is not the published file.*the download failed"):
        open_source(f"{name}:{root}").splits["train"]()
    assert sorted(root.rglob("*")) == before


def test_a_damaged_copy_beside_its_archive_says_to_remove_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("cifar10", tmp_path / "origin", tmp_path, monkeypatch)
    open_source(f"cifar10:{tmp_path}").splits["train"]()
    batch = tmp_path / "cifar-10-batches-py/data_batch_3"
    batch.write_bytes(b"")
    with pytest.raises(DataError, match=r"damaged or incomplete .*: remove .*-py, and cifar-10-python\.tar\.gz"):
        open_source(f"cifar10:{tmp_path}").splits["train"]()
    batch.unlink()
    with pytest.raises(DataError, match=r"batches-py lacks data_batch_3: remove .*, and cifar-10-python\.tar\.gz"):
        open_source(f"cifar10:{tmp_path}").splits["train"]()


def test_a_root_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("cifar10", tmp_path / "origin", tmp_path / "root", monkeypatch)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz cannot be unpacked there \(permission denied\)"):
        open_source(f"cifar10:{tmp_path / 'root'}").splits["train"]()


@pytest.mark.parametrize("place", [".", "MNIST/raw"])
@pytest.mark.parametrize("form", ["published", "unpacked", "with a dot"])
def test_mnist_is_read_where_it_lies(place: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_mnist("MNIST", tmp_path / "origin", monkeypatch)
    resources = []
    for name, _ in datasets.MNIST.resources:
        content = (tmp_path / "origin/MNIST/raw" / name.removesuffix(".gz")).read_bytes()
        written = {"published": name, "unpacked": name[:-3], "with a dot": name[:-3].replace("-idx", ".idx")}[form]
        path = write(tmp_path / "root" / place / written, gzip.compress(content) if form == "published" else content)
        resources.append((name, md5(path)))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    before = sorted(tmp_path.rglob("*"))
    listing = open_source(f"mnist:{tmp_path / 'root'}").splits["train"]()
    assert listing.labels.tolist() == [3, 1, 9]
    assert listing.images.load(0)[-1, 0].tolist() == [77, 77, 77]
    assert listing.findings == ()
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


def test_mnist_says_what_is_missing_and_what_is_not_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_mnist("FashionMNIST", tmp_path, monkeypatch)
    raw = tmp_path / "FashionMNIST/raw"
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=rf"{raw} lacks t10k-labels-idx1-ubyte \(or \.gz\): put it there"):
        open_source(f"fashion-mnist:{tmp_path}").splits["test"]()
    labels = raw / "train-labels-idx1-ubyte"
    write(raw / f"{labels.name}.gz", gzip.compress(labels.read_bytes()))
    labels.unlink()
    (note,) = open_source(f"fashion-mnist:{tmp_path}").splits["train"]().findings
    assert "is not compressed as published, though whole" in note.message


def test_a_missing_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_food101(tmp_path, monkeypatch)
    (tmp_path / "food-101/meta/test.json").unlink()
    with pytest.raises(DataError, match=rf"food101: {tmp_path}/food-101/meta lacks test\.json: put it there"):
        open_source(f"food101:{tmp_path}").splits["test"]()
