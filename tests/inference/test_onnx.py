"""ONNX files run by onnxruntime, without torch, on tiny networks drawn here; and files that no `imgcls export` made."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import Result

from imgcls.errors import CheckpointError, Exit, UsageError
from imgcls.inference import onnx as module
from imgcls.inference.model import load
from imgcls.machine import THREAD_NUMBERS, available_cpus
from imgcls.schema import ModelCard, Preprocess, Pretrained

Run = Callable[..., Result]
Numbers = npt.NDArray[Any]

COLOURS = {"red": (200, 10, 0), "green": (0, 200, 20), "blue": (30, 0, 200)}
CARD = ModelCard(
    arch="means",
    arch_options={},
    classes=("red", "green", "blue"),
    preprocess=Preprocess(size=8, resize=8),
    pretrained=Pretrained(asked="no", used=None, reason=""),
)
HOLDOUT = np.array([-5, 0, 2**62], dtype="<i8")


def draw_network(
    path: Path,
    *,
    input: int = TensorProto.UINT8,
    batch: str | int = "batch",
    size: int = 8,
    axis: int = 1,
    **metadata: str,
) -> Path:
    """Write a network whose logit for a class is the mean level of one colour channel: red, green, blue."""
    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["levels"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"], axis=axis),
    ]
    images = helper.make_tensor_value_info("images", input, [batch, 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])
    graph = helper.make_graph(nodes, "means", [images], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def exported(path: Path, card: Any = None, **network: Any) -> Path:
    """Write the network with the metadata of `imgcls export`, `card` laid over the true one."""
    description = json.dumps(CARD.to_dict() | (card or {}))
    holdout = base64.b64encode(HOLDOUT.tobytes()).decode()
    return draw_network(path, **{"imgcls.json": description, "imgcls.holdout": holdout} | network)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return exported(tmp_path / "means.onnx")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 10), colour).save(tmp_path / f"{name}.png")
    return [tmp_path / f"{name}.png" for name in COLOURS]


def pixels(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


# Answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_predict_answers_from_an_onnx_file(run: Run, network: Path, pictures: list[Path], device: str) -> None:
    result = run("predict", *pictures, "missing.png", "--ckpt", network, "--device", device, "--top-k", 3)
    assert result.exit_code == Exit.SOME_FAILED
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [[str(path), path.stem] for path in pictures] + [["missing.png", ""]]
    assert f"{network}: means, epoch 0, not validated; from scratch" in result.stderr


def test_a_handful_of_images_is_not_worth_an_optimised_session(
    run: Run, network: Path, pictures: list[Path], opened: list[Any], levels: list[Any]
) -> None:
    """Decided before the first answer, by what was named; standard input may bring many."""
    none, usual = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        onnxruntime.SessionOptions().graph_optimization_level,
    )
    listed = "\n".join(map(str, pictures)).encode()
    assert run("predict", *pictures, pictures[0], "--ckpt", network).exit_code == Exit.DONE
    assert run("predict", *pictures, *pictures, "--ckpt", network, "--batch-size", 2).exit_code == Exit.DONE
    assert run("predict", "-", "--ckpt", network, stdin=listed).exit_code == Exit.DONE
    assert run("info", network).exit_code == Exit.DONE
    load(str(network))
    assert levels == [none, usual, usual, none, usual]
    assert len(opened) == 5, "one session each"


def test_several_threads_get_the_answers_that_one_gets(network: Path, opened: list[Any]) -> None:
    model = load(str(network))
    batches = [pixels(count) for count in (1, 9, 3, 64, 2, 33)] * 5
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(model.logits, batches))
    assert len(opened) == 1
    for found, batch in zip(together, batches, strict=True):
        np.testing.assert_array_equal(found, model.logits(batch))


def test_a_slow_producer_gets_each_answer_before_it_writes_the_next_path(network: Path, pictures: list[Path]) -> None:
    line = [sys.executable, "-m", "imgcls", "predict", "-", "--ckpt", str(network)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        for path in pictures:
            process.stdin.write(f"{path}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline().split(b"\t")[:2] == [os.fsencode(path), path.stem.encode()]
        process.stdin.close()
        assert process.wait() == Exit.DONE
        watchdog.cancel()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_network_for_levels_gets_levels(network: Path, count: int) -> None:
    images = pixels(count)
    logits = load(str(network)).logits(images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, images.mean(axis=(1, 2)), rtol=1e-5)


def test_a_network_for_0_to_1_gets_levels_divided_by_255(tmp_path: Path) -> None:
    path = exported(tmp_path / "floats.onnx", input=TensorProto.FLOAT)
    images = pixels(3)
    np.testing.assert_allclose(load(str(path)).logits(images), images.mean(axis=(1, 2)) / 255, rtol=1e-5)


def test_the_card_and_the_hold_out_come_back(network: Path) -> None:
    model = load(str(network))
    assert model.card == CARD
    np.testing.assert_array_equal(model.holdout, HOLDOUT)
    assert model.holdout_content.shape == (0,), "a file of an older version"


def test_predict_with_an_onnx_file_imports_no_torch(network: Path, pictures: list[Path]) -> None:
    """Nor pydantic, which typer would import to convert numbers."""
    line = ["predict", str(pictures[2]), "--ckpt", str(network), "--top-k", "2", "--threshold", "0.5"]
    code = f"""
import sys
from imgcls.cli.app import app
try:
    app({line!r}, prog_name="imgcls")
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    answer, modules = done.stdout.splitlines()
    assert answer.split("\t")[1] == "blue"
    assert "onnxruntime" in modules.split()
    assert not {"torch", "torchvision", "pydantic", "onnx", "matplotlib"} & set(modules.split())
    assert done.stderr.count("\n") == 1, "onnxruntime says nothing of its own"


# Devices -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How far each session is to optimise its network."""
    found: list[Any] = []
    session = onnxruntime.InferenceSession

    def open_session(path: str, options: Any, providers: list[Any]) -> Any:
        found.append(options.graph_optimization_level)
        return session(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    return found


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Any], Any]]:
    """The providers and options of every session that is opened; the CPU alone does the work."""
    found: list[tuple[list[Any], Any]] = []
    session = onnxruntime.InferenceSession

    def open_session(path: str, options: Any, providers: list[Any]) -> Any:
        found.append((providers, options))
        made: Any = session(path, options, providers=["CPUExecutionProvider"])
        made.get_providers = lambda: [provider if isinstance(provider, str) else provider[0] for provider in providers]
        return made

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    return found


def have(monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])


@pytest.mark.parametrize(("asked", "threads"), [(None, available_cpus()), ("3", 3)])
def test_it_runs_on_all_cpus_of_the_process_or_as_the_environment_asks(
    network: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch, asked: str | None, threads: int
) -> None:
    for name in THREAD_NUMBERS:
        monkeypatch.delenv(name, raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    have(monkeypatch)
    load(str(network))
    ((providers, options),) = opened
    assert (providers, options.intra_op_num_threads) == (["CPUExecutionProvider"], threads)


def test_its_threads_sleep_while_they_wait(network: Path, opened: list[Any]) -> None:
    load(str(network))
    assert opened[0][1].get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(("device", "number"), [("auto", 0), ("cuda", 0), ("cuda:1", 1), ("cpu", None)], ids=str)
def test_a_gpu_is_used_where_onnxruntime_has_one_and_without_tf32(
    network: Path, opened: list[Any], monkeypatch: pytest.MonkeyPatch, device: str, number: int | None
) -> None:
    have(monkeypatch, "CUDAExecutionProvider")
    load(str(network), device)
    gpu = [] if number is None else [("CUDAExecutionProvider", {"device_id": number, "use_tf32": 0})]
    assert opened[0][0] == [*gpu, "CPUExecutionProvider"]


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_onnxruntime_has_not_is_a_usage_error(
    run: Run, network: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    have(monkeypatch)
    result = run("predict", *pictures, "--ckpt", network, "--device", device)
    assert result.exit_code == Exit.USAGE
    assert result.stderr == f"error: --device {device}: this onnxruntime runs on the CPU only; type --device cpu\n"


def test_mixed_precision_is_refused(run: Run, network: Path, pictures: list[Path]) -> None:
    result = run("predict", *pictures, "--ckpt", network, "--amp")
    assert result.exit_code == Exit.USAGE
    assert result.stderr == f"error: --amp: {network} runs in float32; drop --amp\n"


def test_without_onnxruntime_the_extra_is_named(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"^onnxruntime is not installed: type pip install 'imgcls\[onnx\]'$"):
        load(str(network))


# Files that are none -------------------------------------------------------------------------------------------------


def refused(run: Run, path: Path, pictures: list[Path]) -> str:
    """Return the one line with which `predict` refuses a file."""
    result = run("predict", *pictures, "--ckpt", path)
    assert result.exit_code == Exit.CHECKPOINT
    assert result.stdout == ""
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"error: {path}: ")
    assert line.endswith("export the checkpoint again")
    return line


@pytest.mark.parametrize("content", [b"", b"just text", b"PK\x03\x04 a zip", bytes(1000)])
def test_a_file_that_is_no_onnx_model_is_exit_4(run: Run, tmp_path: Path, pictures: list[Path], content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    assert "not an ONNX model" in refused(run, tmp_path / "model.onnx", pictures)


def test_half_a_file_is_exit_4(run: Run, network: Path, pictures: list[Path]) -> None:
    network.write_bytes(network.read_bytes()[:-100])
    refused(run, network, pictures)


def test_a_folder_and_a_missing_file_are_usage_errors(run: Run, tmp_path: Path, pictures: list[Path]) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for name, problem in (("folder.onnx", "is a folder"), ("none.onnx", "no such file")):
        result = run("predict", *pictures, "--ckpt", tmp_path / name)
        assert result.exit_code == Exit.USAGE
        assert f"{tmp_path / name}: {problem}; " in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_model_of_another_program_is_exit_4(run: Run, tmp_path: Path, pictures: list[Path]) -> None:
    other = draw_network(tmp_path / "other.onnx")
    assert "not made by imgcls export (no 'imgcls.json')" in refused(run, other, pictures)


@pytest.mark.parametrize(
    ("forged", "problem"),
    [
        ({"classes": ["red", "green"]}, "is not what its card says"),
        ({"classes": ["red", "green", "blue", "olive"]}, "is not what its card says"),
        ({"preprocess": CARD.to_dict()["preprocess"] | {"size": 6}}, "is not what its card says"),
        ({"preprocess": CARD.to_dict()["preprocess"] | {"mean": [0.5]}}, "no valid preprocessing"),
        ({"preprocess": CARD.to_dict()["preprocess"] | {"std": ["a", "b", "c"]}}, ""),
        ({"preprocess": {"size": 8}}, "no 'mean'"),
        ({"classes": "red"}, "classes is str, not list"),
        ({"classes": [1, 2, 3]}, "classes are no names"),
        ({"pretrained": {}}, ""),
        ({"metrics": {"accuracy": "x"}}, "no 'accuracy_interval'"),
        ({"arch": None}, "arch is NoneType, not str"),
    ],
    ids=str,
)
def test_a_card_that_is_not_its_networks_is_exit_4(
    run: Run, tmp_path: Path, pictures: list[Path], forged: dict[str, Any], problem: str
) -> None:
    line = refused(run, exported(tmp_path / "forged.onnx", forged), pictures)
    assert "not made by imgcls export" in line
    assert problem in line


@pytest.mark.parametrize(
    "metadata",
    [
        {"imgcls.json": ""},
        {"imgcls.json": "{"},
        {"imgcls.json": "[]"},
        {"imgcls.json": "7"},
        {"imgcls.json": "[" * 100_000},
        {"imgcls.holdout": "AAAA"},
        {"imgcls.holdout": "ä"},
        {"imgcls.holdout_content": "AAAAAAAAAAA="},
        {"imgcls.holdout_content": "ä"},
    ],
    ids=lambda metadata: str(metadata)[:40],
)
def test_forged_metadata_is_exit_4(run: Run, tmp_path: Path, pictures: list[Path], metadata: dict[str, str]) -> None:
    line = refused(run, exported(tmp_path / "forged.onnx", **metadata), pictures)
    assert "not made by imgcls export" in line


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.DOUBLE])
def test_a_network_for_another_type_of_images_is_exit_4(
    run: Run, tmp_path: Path, pictures: list[Path], kind: int
) -> None:
    assert "(no 'tensor(" in refused(run, exported(tmp_path / "other.onnx", input=kind), pictures)


def test_a_frozen_batch_size_is_said_when_it_is_met(tmp_path: Path) -> None:
    model = module.load(str(exported(tmp_path / "frozen.onnx", batch=2)))
    assert model.logits(pixels(2)).shape == (2, 3)
    with pytest.raises(CheckpointError, match=r"frozen\.onnx: cannot be run on 3 images: ") as caught:
        model.logits(pixels(3))
    assert "\n" not in str(caught.value)


def test_an_answer_of_another_shape_is_said(run: Run, tmp_path: Path, pictures: list[Path]) -> None:
    """All images in one row, which no shape in the file gives away."""
    line = refused(run, exported(tmp_path / "odd.onnx", axis=0), pictures)
    assert "gives logits [1, 9] for 3 images" in line
