"""Two processes stop, save, fail and diverge together, and go on exactly."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ranks import two_processes
from small_runs import Tensors, same, tiny

from imgcls import checkpoint, signals
from imgcls.engine.learn.learner import Learner
from imgcls.engine.run import watch
from imgcls.errors import Exit
from imgcls.events import Event, Stepped

pytest_plugins = ("small_runs",)

# BatchNorm's statistics are of each process's own images; the last batch of an epoch has one for one of them.
ASKED: dict[str, Any] = {"epochs": 2, "arch": "bn-cnn", "limit": 16, "batch_size": 2, "augment": "light", "ema": True}
ASKED |= {"dropout": 0.3, "accumulate": 2}
CLOCKS = ("seconds", "images_per_second", "data_wait")


def left(out: Path) -> tuple[Tensors, Tensors, list[dict[str, Any]]]:
    """Return the average, the weights and the figures of a run."""
    last = checkpoint.load(out / "last.pt")
    rows = [{key: value for key, value in row.items() if key not in CLOCKS} for row in last.training["history"]]
    return last.model, last.training["raw"], rows


def status(out: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / "config.json").read_text())["run"]
    return values


@pytest.fixture(scope="module")
def straight(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight")
    assert two_processes(tiny(pictures, out=str(out), **ASKED)) == [0, 0]
    return out


def assert_equal(one: Path, other: Path) -> None:
    first, second = left(one), left(other)
    assert same(first[0], second[0])
    assert same(first[1], second[1])
    assert first[2] == second[2]


def test_processes_that_stop_after_every_step_end_as_those_that_never_do(pictures: Path, tmp_path: Path) -> None:
    """Three, each with its own sums and statistics. The order in which their gradients are added decides the rounding.

    Five starts of half a second.
    """
    alone, stopped = (tiny(pictures, out=str(tmp_path / name), resume=True, **ASKED) for name in ("alone", "stopped"))
    assert two_processes(alone, count=3) == [0, 0, 0]
    ends = [two_processes(replace(stopped, time_limit=0), count=3)]
    while ends[-1] == [Exit.TIME_LIMIT] * 3:
        ends.append(two_processes(replace(stopped, time_limit=0), count=3))
    assert ends[-1] == [0, 0, 0]
    assert len(ends) >= 4
    assert_equal(tmp_path / "alone", tmp_path / "stopped")


def test_a_signal_to_one_process_stops_both_after_the_same_step(
    pictures: Path, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0)  # they agree after each step

    def interrupt(rank: int, event: Event) -> None:
        if rank == 1 and isinstance(event, Stepped) and (event.epoch, event.phase) == (2, "train"):
            signals._caught[:] = [signal.SIGTERM]

    config = tiny(pictures, out=str(tmp_path), **ASKED)
    assert two_processes(config, interrupt) == [Exit.SIGTERM] * 2
    assert status(tmp_path)["status"] == "interrupted"
    assert two_processes(replace(config, resume=True)) == [0, 0]
    assert_equal(straight, tmp_path)


@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_is_killed_ends_the_other_and_config_json_says_so(
    pictures: Path, tmp_path: Path, straight: Path, dies: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def kill(rank: int, event: Event) -> None:
        if rank == dies and isinstance(event, Stepped) and (event.epoch, event.phase) == (2, "val"):
            os.kill(os.getpid(), signal.SIGKILL)

    config = tiny(pictures, out=str(tmp_path), **ASKED)
    ends = two_processes(config, kill)
    assert (ends[dies], ends[1 - dies]) == (-signal.SIGKILL, Exit.RESOURCES)
    sentence = f"process {1 - dies} of 2 lost its connection to another, which failed or was killed"
    assert f"error: {sentence}\n" in capfd.readouterr().err
    assert status(tmp_path)["status"] == f"failed: {sentence}"
    assert two_processes(replace(config, resume=True)) == [0, 0]
    assert_equal(straight, tmp_path)


def test_a_loss_of_one_process_that_is_no_number_ends_both_at_its_step(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Learner.learn

    def spoilt(learner: Learner, window: Any) -> Any:
        figures = learn(learner, window)
        if learner.run.world.rank == 1 and learner.step == 3:
            figures[0] = float("nan")
        return figures

    monkeypatch.setattr(Learner, "learn", spoilt)
    assert two_processes(tiny(pictures, out=str(tmp_path), **ASKED)) == [Exit.DIVERGED] * 2
    sentences = {line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")}
    (sentence,) = sentences
    assert sentence.startswith("error: epoch 2, step 3: the loss or its gradient became NaN or infinite on ")
    assert (status(tmp_path)["status"], status(tmp_path)["step"]) == ("diverged", 3)
    assert len(status(tmp_path)["images"]) == 8, "of two batches of both"
