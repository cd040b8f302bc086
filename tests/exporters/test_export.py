"""An export is proved before it gets its name: planted faults are caught, and a failure leaves nothing behind."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import draw_tree
from torch import nn
from typer.testing import Result

from imgcls import checkpoint
from imgcls.errors import Exit, ExportError, UsageError
from imgcls.exporters import onnx, pt2, torchscript
from imgcls.exporters.export import comparison_images, export
from imgcls.exporters.model import Exportable, exportable
from imgcls.inference.model import load
from imgcls.models.classifier import Classifier
from imgcls.schema import Preprocess

Run = Callable[..., Result]
Spoil = Callable[[Exportable], Exportable]
Write = Callable[[Exportable, Path], None]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test leaves anything in the folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to write, in a folder of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.onnx"


def refused(run: Run, best: Path, target: Path, *arguments: object, code: Exit = Exit.FAILED) -> str:
    """Return the one line with which an export fails; neither the target nor anything else is left."""
    result = run("export", "--ckpt", best, "--output", target, *arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    *talk, line = result.stderr.splitlines()
    assert [said.split()[0] for said in talk] == ["writing", "running"][: len(talk)]
    assert line.startswith("error: ")
    assert os.listdir(target.parent) == []
    return line


# Planted faults ------------------------------------------------------------------------------------------------------


class Changed(nn.Module):
    """A network with something done to its images and its logits."""

    def __init__(self, network: nn.Module, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images if self.before is None else self.before(images))
        return logits if self.after is None else self.after(logits)


def changed(before: Any = None, after: Any = None) -> Spoil:
    return lambda exported: dataclasses.replace(exported, model=Changed(exported.model, before, after).eval())


def with_another_mean(exported: Exportable) -> Exportable:
    """Give the network the mean (0.5, 0.5, 0.5), and leave the card as it is."""
    assert isinstance(exported.model, Classifier)
    wrong = dataclasses.replace(exported.card.preprocess, mean=(0.5, 0.5, 0.5))
    return dataclasses.replace(exported, model=Classifier(exported.model.network, wrong).eval())


def with_classes_reversed(exported: Exportable) -> Exportable:
    card = dataclasses.replace(exported.card, classes=exported.card.classes[::-1])
    return dataclasses.replace(exported, card=card)


def with_a_third_class(exported: Exportable) -> Exportable:
    """Give both the network and the card one class more."""
    model = Changed(exported.model, after=lambda logits: torch.cat([logits, logits[:, :1]], 1)).eval()
    return dataclasses.replace(exported, model=model, card=dataclasses.replace(exported.card, classes=("a", "b", "c")))


swapped_channels = changed(before=lambda images: images[:, [2, 1, 0]])
some_nan = changed(after=lambda logits: torch.where(logits > 0, torch.nan, logits))
some_infinity = changed(after=lambda logits: torch.where(logits > 0, torch.inf, logits))


def plant(monkeypatch: pytest.MonkeyPatch, format: Any, spoil: Spoil) -> None:
    """Make a format's writer write something else."""
    write: Write = format.write
    monkeypatch.setattr(format, "write", lambda exported, path: write(spoil(exported), path))


PROBABILITIES = "the onnx file disagrees with the checkpoint: its probabilities differ by up to "
FAULTS: dict[str, tuple[Spoil, str]] = {
    "swapped channels": (swapped_channels, PROBABILITIES),
    "another mean": (with_another_mean, PROBABILITIES),
    "NaN for some": (some_nan, "the onnx file disagrees with the checkpoint: it gives NaN or infinite logits"),
    "infinity for some": (
        some_infinity,
        "the onnx file disagrees with the checkpoint: it gives NaN or infinite logits",
    ),
    "classes reversed": (
        with_classes_reversed,
        "the onnx file disagrees with the checkpoint: it describes another model",
    ),
    "a class more": (with_a_third_class, "the onnx file disagrees with the checkpoint: it describes another model"),
    "a logit more": (changed(after=lambda logits: torch.cat([logits, logits], 1)), "is not what its card says"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(
    run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    spoil, problem = FAULTS[fault]
    plant(monkeypatch, onnx, spoil)
    line = refused(run, best, target)
    assert line.startswith(f"error: {target}: not written: ")
    assert problem in line
    assert line.endswith("type --format pt2")


def test_a_frozen_batch_size_is_caught(run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export of the two example images alone, as torch makes it unless told."""
    monkeypatch.setattr(pt2, "ANY_BATCH", None)
    line = refused(run, best, target)
    assert line.startswith(f"error: {target}: not written: the file fails in a fresh process: ")
    assert "cannot be run on 1 images" in line


@pytest.mark.parametrize("fault", ["swapped channels", "another mean"])
def test_so_it_is_in_torchscript(
    run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    plant(monkeypatch, torchscript, FAULTS[fault][0])
    target = target.with_suffix(".torchscript")
    line = refused(run, best, target, "--format", "torchscript")
    assert line.startswith(f"error: {target}: not written: the torchscript file disagrees with the checkpoint: its pro")
    assert line.endswith("type --format pt2")


def test_an_older_file_survives_a_failure(run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, onnx, swapped_channels)
    target.write_bytes(b"older")
    assert run("export", "--ckpt", best, "--output", target).exit_code == Exit.FAILED
    assert target.read_bytes() == b"older"
    assert os.listdir(target.parent) == [target.name]


def test_a_network_sure_of_everything_hides_no_fault(
    best: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its probabilities are 0 and 1 whatever the fault is; its logits tell."""
    loaded = checkpoint.load(best)
    sure = {name: tensor * 1e5 if name.startswith("4.") else tensor for name, tensor in loaded.model.items()}
    checkpoint.save(tmp_path / "sure.pt", dataclasses.replace(loaded, model=sure))
    assert export(str(tmp_path / "sure.pt"), output=str(target)).probability_difference == 0
    target.unlink()
    plant(monkeypatch, onnx, changed(after=lambda logits: logits * 1.01))
    with pytest.raises(ExportError, match=r"its logits differ by up to .* of their range \(limit 1e-03\)"):
        export(str(tmp_path / "sure.pt"), output=str(target))
    assert os.listdir(target.parent) == []


# Writers that fail ---------------------------------------------------------------------------------------------------


def failing(error: Exception) -> Write:
    def write(exported: Exportable, path: Path) -> None:
        path.write_bytes(b"half a f")
        raise error

    return write


def test_what_an_exporter_cannot_do_is_said_in_one_line(
    run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "write", failing(RuntimeError("no such operator\nand\nmuch more")))
    line = refused(run, best, target)
    assert line == "error: simple-cnn cannot be written as onnx: no such operator; type --format pt2"


def test_pt2_that_fails_names_onnx(run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pt2, "write", failing(ZeroDivisionError()))
    line = refused(run, best, target.with_suffix(".pt2"), "--format", "pt2")
    assert line == "error: simple-cnn cannot be written as pt2: ZeroDivisionError; type --format onnx"


def test_a_full_disk_is_exit_7(run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "write", failing(OSError(errno.ENOSPC, "No space left on device")))
    line = refused(run, best, target, code=Exit.WRITE)
    sentence = f"error: {target}: cannot write: no space left on device; free space: it needs more than 8 bytes"
    assert line == sentence


def test_a_file_that_cannot_be_loaded_is_caught(
    run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "write", lambda exported, path: path.write_bytes(b"garbage"))
    line = refused(run, best, target)
    assert "not written: the file fails in a fresh process: CheckpointError: " in line
    assert "not an ONNX model" in line


def test_a_file_that_kills_its_reader_is_caught(
    run: Run, best: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -KILL $$\n")
    python.chmod(0o700)
    monkeypatch.setattr(onnx, "write", lambda exported, path: path.write_bytes(b"deadly"))
    monkeypatch.setattr(sys, "executable", str(python))
    assert "fails in a fresh process: it was ended by signal 9; " in refused(run, best, target)


def test_a_module_in_the_current_folder_is_not_taken_for_ours(
    best: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('a stranger ran')")
    monkeypatch.chdir(tmp_path)
    export(str(best), output=str(target))
    assert target.exists()


def test_more_than_one_onnx_file_can_hold_names_pt2(
    run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "MOST_BYTES", 9_991)  # simple-cnn at 16 px has 2498 weights of 4 bytes
    line = refused(run, best, target)
    assert line.startswith("error: simple-cnn has 0.00 GiB of weights and one ONNX file holds 2 GiB: ")
    assert line.endswith("type --format pt2")


@pytest.mark.parametrize(
    ("imported", "package", "format"),
    [
        ("onnxruntime", "onnxruntime", "onnx"),
        ("onnxscript", "onnxscript", "onnx"),
        ("safetensors.torch", "safetensors", "safetensors"),
    ],
)
def test_a_missing_package_is_one_sentence(
    run: Run, best: Path, target: Path, monkeypatch: pytest.MonkeyPatch, imported: str, package: str, format: str
) -> None:
    monkeypatch.setitem(sys.modules, imported, None)
    line = refused(run, best, target.with_suffix(f".{format}"), "--format", format, code=Exit.USAGE)
    assert line == f"error: {package} is not installed: type pip install 'imgcls[{format}]'"


def test_a_network_that_overflows_is_the_checkpoints_problem(
    run: Run, best: Path, target: Path, tmp_path: Path
) -> None:
    loaded = checkpoint.load(best)
    huge = {name: torch.full_like(tensor, 1e38) for name, tensor in loaded.model.items()}
    checkpoint.save(tmp_path / "huge.pt", dataclasses.replace(loaded, model=huge))
    target = target.with_suffix(".safetensors")
    line = refused(run, tmp_path / "huge.pt", target, "--format", "safetensors", code=Exit.CHECKPOINT)
    assert line == f"error: {tmp_path / 'huge.pt'}: the network gives NaN or infinite logits; use an earlier checkpoint"


# What is compared and what is kept -----------------------------------------------------------------------------------


def test_at_most_256_images_of_data_are_compared_test_before_val_before_train(tmp_path: Path) -> None:
    draw_tree(tmp_path / "data", {"train/a": 2, "val/a": 150, "val/b": 150}, (20, 10))
    images, where = comparison_images(str(tmp_path / "data"), Preprocess(size=8, resize=8))
    assert where == str(tmp_path / "data" / "val")
    assert images.shape == (256, 8, 8, 3)
    assert images.dtype == np.uint8
    draw_tree(tmp_path / "data", {"test/a": 3}, (20, 10))
    images, where = comparison_images(str(tmp_path / "data"), Preprocess(size=8, resize=8))
    assert (where, len(images)) == (f"{tmp_path / 'data' / 'test'}, and drawn images", 3 + 20), "a batch of each size"


def test_drawn_images_are_no_grey_noise() -> None:
    images, _ = comparison_images(None, Preprocess(size=224, resize=256))
    assert images.shape == (20, 224, 224, 3)
    assert np.array_equal(images, comparison_images(None, Preprocess(size=224, resize=256))[0])
    blocks = images.reshape(20, 4, 56, 4, 56, 3).mean(axis=(2, 4))
    assert blocks.std(axis=(1, 2)).min() > 10, "seen coarsely they are still patterns"


def test_an_unreadable_image_of_data_is_exit_3_before_anything_is_written(
    run: Run, best: Path, target: Path, tmp_path: Path
) -> None:
    data = draw_tree(tmp_path / "data", {"val/blue": 2, "val/red": 1}, (16, 16))
    (data / "val/red/bad.png").write_text("<html>")
    line = refused(run, best, target, "--data", data, code=Exit.DATA)
    assert str(data / "val/red/bad.png") in line


def test_a_link_is_followed_and_stays_a_link(best: Path, target: Path) -> None:
    target.write_bytes(b"older")
    link = target.parent / "link.onnx"
    link.symlink_to(target.name)
    export(str(best), output=str(link))
    assert link.is_symlink()
    assert load(str(target)).card == checkpoint.load(best).card


def test_the_hold_out_travels_in_the_onnx_file(best: Path, target: Path) -> None:
    holdout = np.array([-(2**63), -1, 0, 2**62], dtype=np.int64)
    loaded = dataclasses.replace(checkpoint.load(best), holdout=holdout, holdout_content=holdout[::-1].copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporters warn about their own insides
        onnx.write(exportable(loaded, "uint8"), target)
    np.testing.assert_array_equal(load(str(target)).holdout, holdout)
    np.testing.assert_array_equal(load(str(target)).holdout_content, holdout[::-1])


@pytest.mark.parametrize("name", ["onx", "tflite"])
def test_from_python_an_unknown_format_is_the_same_usage_error(best: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"^--format {name}: not known.*; choose from: onnx, torchscript, pt2, safe"):
        export(str(best), name)


# On photographs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet(run: Run, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pt of a resnet18 after a few steps on photographs of ants and bees."""
    out = tmp_path_factory.mktemp("ants-and-bees") / "run"
    options = ("--no-pretrained", "--epochs", 1, "--batch-size", 8, "--limit", 64, "--size", 96, "--workers", 0)
    result = run("train", "--data", photographs, "--arch", "resnet18", *options, "--out", out)
    assert result.exit_code == 0, result.output
    return out / "best.pt"


def test_on_photographs_onnx_and_checkpoint_give_one_answer(
    run: Run, photographs: Path, resnet: Path, target: Path
) -> None:
    done = export(str(resnet), output=str(target), data=str(photographs))
    assert (done.images, done.compared) == (153, str(photographs / "val"))
    assert done.probability_difference < 1e-4

    def answers(file: Path) -> dict[str, dict[str, float]]:
        result = run("predict", photographs / "val", "--top-k", 2, "--format", "jsonl", "--ckpt", file)
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        return {row["path"]: {score["class"]: score["confidence"] for score in row["top"]} for row in rows}

    found, expected = answers(target), answers(resnet)
    assert len(expected) == 153
    assert found.keys() == expected.keys()
    for path, scores in expected.items():
        assert found[path] == pytest.approx(scores, abs=1e-4)
    assert np.ptp([scores["ants"] for scores in expected.values()]) > 0.05, "one answer for all would prove little"
