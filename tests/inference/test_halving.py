"""Where memory is too short for a batch, half of it is taken, with the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import Result

from imgcls.errors import Exit, ResourceError, out_of_memory
from imgcls.inference.halving import Halving
from imgcls.inference.model import load
from imgcls.models.classifier import Classifier


def short_of(most: int, error: Exception, seen: list[int]) -> Callable[[Any], Any]:
    """Return a function that has memory for so many at most."""

    def double(images: Any) -> Any:
        seen.append(len(images))
        if len(images) > most:
            raise error
        return images * 2

    return double


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_batch_is_halved_until_it_fits_and_so_are_the_next(error: Exception) -> None:
    seen: list[int] = []
    said: list[str] = []
    halving = Halving(short_of(3, error, seen), np.concatenate, said.append)
    assert halving(np.arange(10)).tolist() == list(range(0, 20, 2))
    assert seen == [10, 5, 2, 2, 2, 2, 2]
    assert said == [
        "out of memory with 10 images at a time: going on with 5, with the same answers",
        "out of memory with 5 images at a time: going on with 2, with the same answers",
    ]
    seen.clear()
    assert halving(np.arange(5)).tolist() == [0, 2, 4, 6, 8]
    assert (seen, halving.most) == ([2, 2, 1], 2)


def test_no_memory_for_one_image_and_other_errors() -> None:
    with pytest.raises(ResourceError, match=r"^out of memory for a single image: ") as caught:
        Halving(short_of(0, ERRORS[0], []), np.concatenate, print)(np.arange(4))
    assert caught.value.exit_code == Exit.RESOURCES
    with pytest.raises(RuntimeError, match="a bug"):
        Halving(short_of(0, RuntimeError("a bug"), []), np.concatenate, print)(np.arange(4))
    assert not out_of_memory(OSError("out of memory")), "a disk says so too"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A network with memory for three images."""
    forward, seen = Classifier.forward, list[int]()

    def limited(model: Classifier, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, images)

    monkeypatch.setattr(Classifier, "forward", limited)
    return seen


def test_predict_and_evaluate_give_the_same_answers(
    run: Callable[..., Result], best: Path, colours: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def answers() -> tuple[str, str, str]:
        predicted = run("predict", colours / "test", "--ckpt", best, "--device", "cpu")
        line = ("evaluate", "--data", colours, "--ckpt", best, "--device", "cpu", "--workers", 0)
        evaluated = run(*line, "--json", tmp_path / "report.json")
        assert (predicted.exit_code, evaluated.exit_code) == (0, 0), predicted.stderr + evaluated.stderr
        return predicted.stdout, evaluated.stdout, predicted.stderr + evaluated.stderr

    expected, *_, _ = answers()
    whole = answers()
    seen: list[int] = request.getfixturevalue("short")
    less = answers()
    assert less[0] == expected
    assert less[1] == whole[1]
    assert max(seen) > 3 >= seen[-1]
    assert "note: memory was short; --batch-size 3 is what it was enough for\n" in less[2]
    assert "warning: out of memory with 6 images at a time: going on with 3, with the same answers\n" in less[2]
    assert load(str(best)).at_once is None
