"""How a model runs: batch size, decoders, device and precision of `evaluate` and `predict` reach what they are for."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from carrying import shows
from typer.testing import Result

from imgcls.cli import progress
from imgcls.config import EvaluateConfig
from imgcls.engine.assess import evaluate as evaluation
from imgcls.errors import Exit
from imgcls.inference import model as module
from imgcls.inference.model import Logits, Model
from imgcls.pixels.decode import Pixels

Run = Callable[..., Result]
COMMANDS = ("evaluate", "predict")


def line(command: str, best: Path, colours: Path) -> tuple[object, ...]:
    if command == "evaluate":
        return ("evaluate", "--data", colours, "--ckpt", best)
    return ("predict", colours / "test", "--ckpt", best)


@shows("evaluate", "batch_size")
def test_evaluate_takes_batches_of_that_size(
    run: Run, best: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", -1)
    for size, batches in ((5, 3), (12, 1)):
        result = run(*line("evaluate", best, colours), "--workers", 0, "--batch-size", size)
        assert f"batch {batches}/{batches} " in result.stderr


@shows("evaluate", "workers")
def test_evaluate_decodes_in_as_many_processes(best: Path, colours: Path) -> None:
    before, alive = len(multiprocessing.active_children()), list[int]()

    def look(event: object) -> None:
        alive.append(len(multiprocessing.active_children()) - before)

    for workers in (0, 2):
        config = EvaluateConfig(data=str(colours), ckpt=str(best), batch_size=4, workers=workers, device="cpu")
        evaluation.evaluate_config(config, look)
        assert max(alive) == workers


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many images the network gets at a time, and how many threads decode when it does."""
    seen: list[tuple[int, int]] = []
    load = module.load

    def watching(path: str, device: str, amp: bool, few: bool) -> Model:
        model = load(path, device, amp, few)

        def logits(images: Pixels) -> Logits:
            decoding = [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
            seen.append((len(images), len(decoding)))
            return model.logits(images)

        return replace(model, logits=logits)

    monkeypatch.setattr(module, "load", watching)
    return seen


@shows("predict", "batch_size", "workers")
def test_predict_takes_batches_of_that_size_and_decodes_in_as_many_threads(
    run: Run, best: Path, colours: Path, watched: list[tuple[int, int]]
) -> None:
    for size, workers in ((10, 0), (24, 3), (7, 2)):
        watched.clear()
        result = run("predict", colours / "train", "--ckpt", best, "--batch-size", size, "--workers", workers)
        assert result.exit_code == Exit.DONE
        assert [count for count, _ in watched] == [*[size] * (24 // size), *([24 % size] if 24 % size else [])]
        assert max(count for _, count in watched) == workers


@pytest.mark.parametrize("command", COMMANDS)
@shows("evaluate", "device")
@shows("predict", "device")
def test_the_device_is_the_one_that_is_named(run: Run, best: Path, colours: Path, command: str) -> None:
    assert run(*line(command, best, colours), "--device", "cpu").exit_code == Exit.DONE
    absent = run(*line(command, best, colours), "--device", "cuda:99")
    assert absent.exit_code == Exit.USAGE
    assert "--device cuda:99: this machine has " in absent.stderr


@pytest.mark.parametrize("command", COMMANDS)
@shows("evaluate", "amp")
@shows("predict", "amp")
def test_mixed_precision_is_said_or_refused(run: Run, best: Path, colours: Path, command: str) -> None:
    result = run(*line(command, best, colours), "--amp")
    if torch.cuda.is_available():
        assert "mixed precision: answers may differ slightly from float32\n" in result.stderr
    else:
        assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
        assert "--amp needs CUDA, and this runs on " in result.stderr
