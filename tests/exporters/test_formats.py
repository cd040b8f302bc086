"""Each format run by its own library alone, as a program without imgcls would, gives the checkpoint's answers."""

from __future__ import annotations

import json
import os
import shutil
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from carrying import shows
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from typer.testing import Result

from imgcls import checkpoint
from imgcls.checkpoint import Checkpoint
from imgcls.exporters import onnx as onnx_format
from imgcls.exporters import pt2, torchscript
from imgcls.exporters.model import Exportable, exportable
from imgcls.inference.model import load, softmax
from imgcls.models.classifier import build_network
from imgcls.schema import ModelCard, Preprocess, Pretrained

Run = Callable[..., Result]
Images = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64]
Network = Callable[[Images], npt.NDArray[np.float32]]

NETWORKS = ("onnx", "torchscript", "pt2")
FORMATS = (*NETWORKS, "safetensors")

jit: Any = torch.jit  # its functions have no annotations
REFUSALS = (onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, jit.Error, RuntimeError, AssertionError)
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


@pytest.fixture(scope="module")
def exports(run: Run, best: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx, model.torchscript, … and nothing else; `said` beside the folder has what --json gave for each."""
    folder = tmp_path_factory.mktemp("formats") / "files"
    (folder.parent / "said").mkdir()
    folder.mkdir()
    for name in FORMATS:
        files = ("--output", folder / f"model.{name}", "--json", folder.parent / "said" / f"{name}.json")
        result = run("export", "--ckpt", best, "--format", name, *files)
        assert result.exit_code == 0, result.output
        assert f"model.{name}: {name}, 0.0 MiB, uint8 images\n" in result.stdout
        assert "\nagrees with the checkpoint on 20 images (drawn images; --data compares your own) at" in result.stdout
    return folder


@pytest.fixture(scope="module")
def floats(best: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of `--input float32`, from the writers alone; that a float32 export passes the proof is shown below."""
    folder = tmp_path_factory.mktemp("floats")
    for name in NETWORKS:
        write(exportable(checkpoint.load(best), "float32"), folder / f"model.{name}")
    return folder


def write(model: Exportable, file: Path) -> None:
    """Write an export without its proof."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporters warn about their own insides
        {".onnx": onnx_format, ".torchscript": torchscript, ".pt2": pt2}[file.suffix].write(model, file)


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    """Ten squares of violet, bluish to reddish, uint8 [10, 3, 16, 16]."""
    share = np.linspace(0.47, 0.6, 10)[:, None]
    colours = (1 - share) * (30, 60, 220) + share * (220, 40, 30)
    noise = np.random.default_rng(0).normal(0, 25, (10, 3, 16, 16))
    return np.clip(colours[:, :, None, None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(best: Path, images: Images) -> Numbers:
    """The checkpoint's probabilities, [10, 2]."""
    probabilities = softmax(load(str(best), "cpu").logits(np.ascontiguousarray(images.transpose(0, 2, 3, 1))))
    assert probabilities.min() > 0.001, "a model sure of its answer would hide faults"
    assert np.ptp(probabilities[:, 0]) > 0.5
    return probabilities


# Reading without imgcls ----------------------------------------------------------------------------------------------


def as_network(file: Path) -> Network:
    """Load an export with its own library."""
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda images: session.run(["logits"], {"images": images})[0]
    if file.suffix == ".safetensors":
        return bare_network(file)
    module = jit.load(file) if file.suffix == ".torchscript" else torch.export.load(file).module()
    return lambda images: module(torch.from_numpy(images)).detach().numpy()


def bare_network(file: Path) -> Network:
    """Rebuild simple-cnn by hand: safetensors holds the weights, and the file beside it the normalisation."""
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 2)
    )
    network.load_state_dict(load_file(file))
    recipe = json.loads(Path(f"{file}.json").read_text())["preprocess"]
    mean, std = (np.array(recipe[name], np.float32).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    return lambda images: network(torch.from_numpy((images / np.float32(255) - mean) / std)).detach().numpy()


def description(file: Path) -> dict[str, Any]:
    """Read imgcls.json out of an export."""
    found = {"imgcls.json": ""}
    if file.suffix == ".onnx":
        found = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    elif file.suffix == ".torchscript":
        jit.load(file, _extra_files=found)
    elif file.suffix == ".pt2":
        torch.export.load(file, extra_files=found)
    else:
        with safe_open(file, framework="np") as opened:
            found = opened.metadata()
    values: dict[str, Any] = json.loads(found["imgcls.json"])
    return values


# The files -----------------------------------------------------------------------------------------------------------


@shows("export", "format", "output")
def test_each_format_is_one_file_that_others_may_read(exports: Path, tmp_path: Path) -> None:
    """No .data file beside the ONNX; safetensors alone has its description beside it too."""
    assert sorted(os.listdir(exports)) == sorted([*(f"model.{name}" for name in FORMATS), "model.safetensors.json"])
    (tmp_path / "plain").touch()
    modes = {stat.filemode(file.stat().st_mode) for file in (tmp_path / "plain", *exports.iterdir())}
    assert len(modes) == 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_its_own_library_gives_the_checkpoints_probabilities(
    exports: Path, images: Images, expected: Numbers, name: str, size: int
) -> None:
    logits = as_network(exports / f"model.{name}")(images[-size:])
    assert logits.shape == (size, 2)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(softmax(logits), expected[-size:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_float32_input_takes_images_divided_by_255(
    floats: Path, images: Images, expected: Numbers, name: str, size: int
) -> None:
    logits = as_network(floats / f"model.{name}")(images[:size].astype(np.float32) / 255)
    assert logits.shape == (size, 2)
    np.testing.assert_allclose(softmax(logits), expected[:size], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FORMATS)
def test_the_description_travels_in_the_file(exports: Path, best: Path, name: str) -> None:
    found = description(exports / f"model.{name}")
    assert found["input"] == {
        "name": "images",
        "type": "uint8",
        "shape": ["batch", 3, 16, 16],
        "values": "RGB, levels 0 to 255; normalisation is inside the network",
    }
    assert found["output"] == {
        "name": "logits",
        "type": "float32",
        "shape": ["batch", 2],
        "values": "before softmax",
    }
    assert found["classes"] == ["blue", "red"]
    assert found["preprocess"]["size"] == found["preprocess"]["resize"] == 16
    assert found["preprocess"]["mean"] == [0.485, 0.456, 0.406]
    assert found["metrics"]["accuracy"] == 1
    card = checkpoint.load(best).card
    assert found.items() >= json.loads(json.dumps(card.to_dict())).items(), "all that the checkpoint says"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_float32_network_says_so(floats: Path, name: str) -> None:
    found = description(floats / f"model.{name}")["input"]
    assert found["type"] == "float32"
    assert found["values"] == "RGB, levels divided by 255, 0 to 1; normalisation is inside the network"


def test_the_description_of_safetensors_lies_beside_it_too(exports: Path) -> None:
    beside = (exports / "model.safetensors.json").read_text()
    assert json.loads(beside) == description(exports / "model.safetensors")
    assert beside.endswith("}\n")


def test_an_onnx_file_asks_for_no_newer_format_than_its_operators_do(exports: Path) -> None:
    """IR version 9 is that of opset 20; torch writes 10, which onnxruntime 1.17 and its like refuse."""
    model = onnx.load(exports / "model.onnx")
    assert [(imported.domain, imported.version) for imported in model.opset_import] == [("", 20)]
    assert model.ir_version == 9
    onnx.checker.check_model(model, full_check=True)


def test_the_onnx_network_is_called_by_its_names(exports: Path, floats: Path) -> None:
    for folder, kind in ((exports, "tensor(uint8)"), (floats, "tensor(float)")):
        onnx.checker.check_model(folder / "model.onnx")
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        (images,), (logits,) = session.get_inputs(), session.get_outputs()
        assert (images.name, images.type, images.shape) == ("images", kind, ["batch", 3, 16, 16])
        assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 2])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 16, 16), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((2, 1, 16, 16), np.uint8),
        np.zeros((3, 16, 16), np.uint8),
    ],
    ids=["float", "small", "grey", "no batch"],
)
def test_images_of_another_type_or_size_are_refused_not_answered(exports: Path, name: str, wrong: Images) -> None:
    network = as_network(exports / f"model.{name}")
    with pytest.raises(REFUSALS):
        network(wrong)


@pytest.mark.parametrize("name", NETWORKS)
def test_so_is_a_size_that_the_network_itself_could_take(tmp_path: Path, name: str) -> None:
    """small-cnn averages over any area, and was trained on one size."""
    card = ModelCard(
        arch="small-cnn",
        arch_options={},
        classes=("blue", "red"),
        preprocess=Preprocess(size=16, resize=16),
        pretrained=Pretrained(asked="no", used=None, reason=""),
    )
    state = build_network("small-cnn", 2, 16).state_dict()
    write(exportable(Checkpoint(card, state, np.empty(0, np.int64)), "uint8"), tmp_path / f"small.{name}")
    network = as_network(tmp_path / f"small.{name}")
    assert network(np.zeros((3, 3, 16, 16), np.uint8)).shape == (3, 2)
    with pytest.raises(REFUSALS):
        network(np.zeros((3, 3, 32, 32), np.uint8))


# What export says, and what else takes the files ---------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_the_stable_fields_of_json(exports: Path, name: str) -> None:
    said = json.loads((exports.parent / "said" / f"{name}.json").read_text())
    file = exports / f"model.{name}"
    assert isinstance(said.pop("seconds"), float)
    assert 0 <= said.pop("probability_difference") < 1e-5
    assert 0 <= said.pop("logits_difference") < 1e-5
    assert said == {
        "path": str(file),
        "format": name,
        "input": "uint8",
        "bytes": file.stat().st_size,
        "images": 20,
        "compared": "drawn images",
        "batch_sizes": [1, 2, 7],
    }


@shows("export", "ckpt", "data", "input")
def test_by_default_an_onnx_file_appears_beside_the_checkpoint(
    run: Run, best: Path, colours: Path, tmp_path: Path
) -> None:
    """An older one is replaced, the test images of --data are compared, and --json - has stdout for itself."""
    shutil.copy(best, tmp_path / "best.pt")
    (tmp_path / "best.onnx").write_bytes(b"older")
    result = run("export", "--ckpt", tmp_path / "best.pt", "--data", colours, "--input", "float32", "--json", "-")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["path"], said["format"]) == (str(tmp_path / "best.onnx"), "onnx")
    assert (said["input"], said["images"], said["compared"]) == ("float32", 12, str(colours / "test"))
    assert said["bytes"] == (tmp_path / "best.onnx").stat().st_size > 1000
    assert sorted(os.listdir(tmp_path)) == ["best.onnx", "best.pt"]
    assert description(tmp_path / "best.onnx")["input"]["type"] == "float32"


def test_predict_gives_one_answer_from_checkpoint_and_onnx(
    run: Run, best: Path, colours: Path, exports: Path, floats: Path
) -> None:
    def rows(file: Path) -> list[dict[str, Any]]:
        result = run("predict", colours / "test", "--top-k", 2, "--format", "jsonl", "--ckpt", file)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    expected = rows(best)
    assert len(expected) == 12
    for file in (exports / "model.onnx", floats / "model.onnx"):
        for row, wanted in zip(rows(file), expected, strict=True):
            assert (row["path"], row["class"]) == (wanted["path"], wanted["class"])
            found = [score["confidence"] for score in row["top"]]
            assert found == pytest.approx([score["confidence"] for score in wanted["top"]], abs=1e-5)


@pytest.mark.parametrize("name", ["torchscript", "pt2", "safetensors"])
def test_a_format_that_predict_does_not_take_is_refused_in_one_line(
    run: Run, colours: Path, exports: Path, name: str
) -> None:
    result = run("predict", colours / "test", "--ckpt", exports / f"model.{name}")
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: {exports / f'model.{name}'}: ")
    assert result.stderr.count("\n") == 1
