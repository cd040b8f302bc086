"""A run stops, saves and goes on at any step, and ends as one that was never stopped."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from carrying import shows
from small_runs import Run, of, run, same, started, tiny, warnings

from imgcls import checkpoint, signals
from imgcls.config import TrainConfig
from imgcls.data import draws
from imgcls.distributed import World
from imgcls.engine.learn.learner import Learner
from imgcls.engine.learn.meter import Meter
from imgcls.engine.run.saving import NoSaver
from imgcls.engine.run.watch import Watch
from imgcls.errors import CheckpointError, DataError, Exit, Interrupted, TimeLimitError, UsageError
from imgcls.events import EpochEnded, Event, Pace, Said, Stepped, silent

pytest_plugins = ("small_runs",)

CLOCKS = ("seconds", "images_per_second", "data_wait")

# Everything that draws random numbers, has a memory or a sum.
RANDOM: dict[str, Any] = {"epochs": 3, "augment": "strong", "dropout": 0.5, "ema": True, "schedule": "plateau"}
RANDOM |= {"mixup": 0.2, "batch_size": 3, "accumulate": 2, "limit": 15, "optimizer": "adamw", "early_stop": 3}
RANDOM |= {"clip_grad": 0.5, "label_smoothing": 0.1, "arch": "bn-cnn"}
PLAIN: dict[str, Any] = {"epochs": 3, "batch_size": 5, "optimizer": "sgd", "schedule": "onecycle"}


def figures(done: Run) -> list[dict[str, Any]]:
    """Return metrics.jsonl without its clock columns."""
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in done.history]


def assert_equal(one: Run, other: Run) -> None:
    """Hold everything that two runs left against each other, bit by bit."""
    assert figures(one) == figures(other)
    for name in ("last.pt", "best.pt"):
        first, second = (checkpoint.load(done.folder / name) for done in (one, other))
        assert same(first.model, second.model), name
        assert (first.card.epoch, first.card.metrics) == (second.card.epoch, second.card.metrics), name
        for part in ("step", "raw", "scaler"):
            values: list[Any] = [checkpoint.training.get(part) for checkpoint in (first, second)]
            assert same(*values) if part == "raw" and values[0] else values[0] == values[1], (name, part)
        if name == "last.pt":
            states = [checkpoint.training["optimizer"]["state"] for checkpoint in (first, second)]
            assert all(same(states[0][key], states[1][key]) for key in states[0])
            assert first.training["within"] is None is second.training["within"]


def repeated(config: TrainConfig, workers: Callable[[int], int] = lambda tries: 0) -> tuple[Run, list[int]]:
    """Repeat a line until it ends; returns the run, and after which steps it had stopped."""
    steps: list[int] = []
    while True:
        try:
            return run(replace(config, resume=True, workers=workers(len(steps)))), steps
        except TimeLimitError:
            assert config.out is not None
            steps.append(checkpoint.load(Path(config.out) / "last.pt").training["step"])


FROZEN: dict[str, Any] = {"epochs": 2, "freeze_epochs": "all", "batch_size": 5, "augment": "none", "flip": False}


@pytest.mark.parametrize("asked", [RANDOM, PLAIN, FROZEN], ids=["everything", "plain", "features"])
@shows("train", "time_limit", "resume")
def test_a_run_that_stops_after_every_step_ends_as_one_that_never_does(
    pictures: Path, tmp_path: Path, asked: dict[str, Any]
) -> None:
    straight = run(tiny(pictures, out=str(tmp_path / "straight"), **asked))
    done, steps = repeated(tiny(pictures, out=str(tmp_path / "stopped"), time_limit=0, **asked))
    last = straight.history[-1]["step"]
    assert [step for number, step in enumerate(steps) if step != steps[number - 1]] == list(range(1, last + 1))
    assert_equal(straight, done)


def test_the_number_of_loader_processes_may_change_at_every_stop(pictures: Path, tmp_path: Path) -> None:
    asked = RANDOM | {"epochs": 2}
    straight = run(tiny(pictures, out=str(tmp_path / "straight"), **asked))
    config = tiny(pictures, out=str(tmp_path / "stopped"), time_limit=0, **asked)
    done, _ = repeated(config, lambda tries: (0, 1, 2)[tries % 3])
    assert_equal(straight, done)


def test_what_is_said_and_left_when_the_time_is_up(pictures: Path, tmp_path: Path) -> None:
    said: list[Event] = []
    with pytest.raises(TimeLimitError) as caught:
        run(tiny(pictures, out=str(tmp_path), time_limit=0), said.append)
    assert caught.value.exit_code == Exit.TIME_LIMIT
    assert "epoch 1: saved after step 1 of 3" in [event.text for event in of(said, Said)]
    assert json.loads((tmp_path / "config.json").read_text())["run"]["status"] == "time limit"
    last = checkpoint.load(tmp_path / "last.pt")
    assert (last.card.epoch, last.card.metrics, last.training["within"]["steps"]) == (0, {}, 1), "nothing was measured"
    assert last.card.format == 2, "older versions would begin the epoch anew"
    assert not (tmp_path / "best.pt").exists()
    done = run(tiny(pictures, out=str(tmp_path), resume=True))
    assert (started(done.events).first_epoch, started(done.events).steps_done) == (1, 1)


def test_the_clock_columns_count_what_was_before_the_stop(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(TimeLimitError):
        run(tiny(pictures, out=str(tmp_path), time_limit=0))
    last = checkpoint.load(tmp_path / "last.pt")
    within = last.training["within"] | {"seconds": 1000.0, "waited": 500.0}
    checkpoint.save(tmp_path / "last.pt", replace(last, training=last.training | {"within": within}))
    (row,) = run(tiny(pictures, out=str(tmp_path), resume=True)).history
    assert 1000 < row["seconds"] < 1100
    assert row["images_per_second"] == pytest.approx(24 / row["seconds"], rel=0.1)
    assert row["data_wait"] == pytest.approx(0.5, rel=0.1)


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Put a signal in, and it has arrived."""
    caught: list[int] = []
    monkeypatch.setattr(signals, "_caught", caught)
    yield caught


def test_a_signal_ends_the_step_and_saves(pictures: Path, tmp_path: Path, arrived: list[int]) -> None:
    straight = run(tiny(pictures, out=str(tmp_path / "straight"), **PLAIN))

    def interrupt(event: Event) -> None:
        if isinstance(event, Stepped) and (event.epoch, event.phase) == (2, "train") and not arrived:
            arrived.append(signal.SIGTERM)

    out = tmp_path / "run"
    with pytest.raises(Interrupted) as caught:
        run(tiny(pictures, out=str(out), **PLAIN), interrupt)
    assert caught.value.signum == signal.SIGTERM
    assert json.loads((out / "config.json").read_text())["run"]["status"] == "interrupted"
    assert checkpoint.load(out / "last.pt").card.epoch == 1
    arrived.clear()
    assert_equal(straight, run(tiny(pictures, out=str(out), resume=True, **PLAIN)))


def test_a_signal_in_validation_keeps_the_epoch_that_was_trained(
    pictures: Path, tmp_path: Path, arrived: list[int]
) -> None:
    straight = run(tiny(pictures, out=str(tmp_path / "straight"), **RANDOM))

    said: list[Event] = []

    def interrupt(event: Event) -> None:
        said.append(event)
        if isinstance(event, Stepped) and (event.epoch, event.phase) == (2, "val") and not arrived:
            arrived.append(signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        run(tiny(pictures, out=str(out), **RANDOM), interrupt)
    assert "epoch 2: saved and not yet validated" in [event.text for event in of(said, Said)]
    last = checkpoint.load(out / "last.pt")
    assert (last.card.epoch, last.training["within"]["steps"]) == (1, 3), "all of the second"
    arrived.clear()
    done = run(tiny(pictures, out=str(out), resume=True, **RANDOM))
    assert [event.epoch for event in of(done.events, Stepped) if event.phase == "train"] == [3], "not trained again"
    assert_equal(straight, done)


def test_a_signal_after_the_last_epoch_stops_nothing(pictures: Path, tmp_path: Path, arrived: list[int]) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnded):
            arrived.append(signal.SIGTERM)

    assert run(tiny(pictures, out=str(tmp_path)), interrupt).finished.reason == "all epochs"


# Saves in between -----------------------------------------------------------------------------------------------------


@shows("train", "save_every")
def test_an_epoch_is_saved_as_often_as_asked(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save at every step, and none but those of the epochs; it changes nothing."""
    kept: list[int] = []
    monkeypatch.setattr(
        "imgcls.engine.run.folder.RunFolder.save_last", lambda folder, last: kept.append(last.training["step"])
    )
    for minutes, steps in ((0, [1, 2, 3, 3, 4, 5, 6, 6]), (1000, [3, 6])):
        kept.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("imgcls.engine.run.saving.Saver.end", lambda *_: None)
            patch.setattr("imgcls.engine.train._finished", lambda *_: None)
            run(tiny(pictures, epochs=2, save_every=minutes, out=str(tmp_path / f"{minutes}")))
        assert kept == steps


def test_the_best_stays_where_the_epoch_after_it_was_stopped(pictures: Path, tmp_path: Path) -> None:
    """best.pt is not made of weights that nobody has measured, whatever becomes of it."""
    asked = {"epochs": 3, "batch_size": 8}
    out = tmp_path / "run"
    with pytest.raises(TimeLimitError):
        run(tiny(pictures, out=str(out), **asked, time_limit=0))
    while checkpoint.load(out / "last.pt").training["step"] < 5:
        with pytest.raises(TimeLimitError):
            run(tiny(pictures, out=str(out), resume=True, **asked, time_limit=0))
    (out / "best.pt").unlink()
    done = run(tiny(pictures, out=str(out), resume=True, **asked))
    sentence = "best.pt: is missing; the best, epoch 1, is lost: the next takes its place until a later one is better"
    assert any(warning.endswith(sentence) for warning in warnings(done.events))
    assert checkpoint.load(out / "best.pt").card.epoch in (2, 3)


def test_a_run_cut_short_in_the_middle_of_an_epoch_needs_its_best_pt(pictures: Path, tmp_path: Path) -> None:
    config = tiny(pictures, out=str(tmp_path), epochs=3, time_limit=0)
    with pytest.raises(TimeLimitError):
        run(config)
    while checkpoint.load(tmp_path / "last.pt").training["step"] < 4:
        with pytest.raises(TimeLimitError):
            run(replace(config, resume=True))
    short = tiny(pictures, out=str(tmp_path), epochs=1, resume=True)
    assert run(short).finished.card.epoch == 1
    (tmp_path / "best.pt").unlink()
    with pytest.raises(CheckpointError, match=r"in the middle of an epoch: a larger --epochs continues it"):
        run(short)


def test_an_epoch_of_other_draws_is_not_gone_on_with(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(pictures, out=str(tmp_path), augment="strong", time_limit=0)
    with pytest.raises(TimeLimitError):
        run(config)
    monkeypatch.setattr(draws, "VERSION", draws.VERSION + 1)
    with pytest.raises(UsageError, match=r"which draws otherwise; go on with that version until the epoch ends"):
        run(replace(config, resume=True))


# Images that fail -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("what", ["changed", "removed"])
def test_an_image_that_changes_while_the_run_goes_on_is_named_and_what_was_learnt_is_saved(
    pictures: Path, tmp_path: Path, workers: int, what: str
) -> None:
    """Nothing is decoded in advance. When it is back, the run goes on from the step before."""
    data, out = Path(shutil.copytree(pictures, tmp_path / "data")), tmp_path / "run"
    asked: dict[str, Any] = {"cache": "off", "epochs": 2, "batch_size": 2, "arch": "bn-cnn"}
    asked |= {"out": str(out)}
    straight = run(tiny(data, **asked | {"out": str(tmp_path / "straight")}))
    image, kept = data / "train/red/003.png", tmp_path / "kept.png"
    shutil.copy2(image, kept)

    def change(event: Event) -> None:
        if isinstance(event, Stepped) and (event.epoch, event.phase) == (1, "train") and event.batch == 1:
            image.unlink()
            if what == "changed":
                shutil.copy2(data / "train/blue/000.png", image)
                shutil.copy2(data / "train/blue/001.png", data / "train/blue/000.png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pace.__init__, "__defaults__", (-1, time.monotonic))
        more = ", and 1 more of 24" if what == "changed" else ""
        name = r"train/blue/000\.png" if what == "changed" else r"train/red/003\.png"
        with pytest.raises(
            DataError, match=rf"{name}: was changed or removed since the run began{more}; put back"
        ) as caught:
            run(tiny(data, **asked, workers=workers), change)
    assert caught.value.exit_code == Exit.DATA
    status = json.loads((out / "config.json").read_text())["run"]["status"]
    assert status == f"failed: {caught.value}"
    done = checkpoint.load(out / "last.pt").training["step"]
    assert 1 <= done < 24
    shutil.copy2(kept, image)
    shutil.copy2(pictures / "train/blue/000.png", data / "train/blue/000.png")
    again = run(tiny(data, **asked, resume=True))
    assert (started(again.events).first_epoch - 1) * 12 + started(again.events).steps_done == done
    assert_equal(straight, again)


def test_an_image_that_fails_in_validation_does_not_cost_the_epoch(pictures: Path, tmp_path: Path) -> None:
    data, out = Path(shutil.copytree(pictures, tmp_path / "data")), tmp_path / "run"
    damaged = data / "val/red/003.png"
    damaged.write_bytes(damaged.read_bytes()[:200])  # its header is whole
    with pytest.raises(DataError, match=r"red/003\.png: .*: replace or remove the file"):
        run(tiny(data, cache="off", batch_size=2, out=str(out)))
    last = checkpoint.load(out / "last.pt")
    assert (last.card.epoch, last.training["within"]["steps"]) == (0, 12)


def test_a_step_that_was_broken_off_is_not_saved(pictures: Path, tmp_path: Path) -> None:
    """With --accumulate, BatchNorm has seen a part of it: the save before it stands."""
    data, out = Path(shutil.copytree(pictures, tmp_path / "data")), tmp_path / "run"
    damaged = data / "train/red/003.png"
    damaged.write_bytes(damaged.read_bytes()[:200])  # its header is whole
    asked: dict[str, Any] = {"cache": "off", "batch_size": 1, "accumulate": 24, "arch": "simple-cnn"}
    with pytest.raises(DataError, match=r"red/003\.png: .*: replace or remove the file"):
        run(tiny(data, **asked, out=str(out)))
    assert not (out / "last.pt").exists()


# Several processes ----------------------------------------------------------------------------------------------------


def test_processes_agree_now_and_then_and_one_that_is_stopped_stops_all(pictures: Path) -> None:
    """By a clock that goes on 0.25 s for each step: at first after one, then after four. The other got a signal."""
    asked: list[list[int]] = []

    class Two(World):
        def most(self, values: torch.Tensor) -> torch.Tensor:
            asked.append(values.tolist())
            return torch.maximum(values, torch.tensor([signal.SIGTERM * (len(asked) == 3), 0, 0, 0, 0]))

    now = [0.0]
    run: Any = SimpleNamespace(config=tiny(pictures), world=Two(0, 2, 0, 2), device=torch.device("cpu"))
    watch = Watch(run, NoSaver(run), silent, 0.0, lambda: now[0])
    verdicts = []
    for _ in range(12):
        now[0] += 0.25
        verdicts.append(watch._agreed().signum)
    assert [values[-1] for values in asked] == [4, 4, 4]
    assert [number for number, signum in enumerate(verdicts) if signum] == [8]


def test_what_was_fast_does_not_set_the_pace_of_what_is_slow() -> None:
    """Validation batches of a moment, then steps of half a second: they agree at the first, and at every second one."""

    class Two(World):
        def most(self, values: torch.Tensor) -> torch.Tensor:
            looks.append(now[0])
            return values

    looks, now = list[float](), [0.0]
    run: Any = SimpleNamespace(config=tiny("data"), world=Two(0, 2, 0, 2), device=torch.device("cpu"))
    watch, meter = Watch(run, NoSaver(run), silent, 0.0, lambda: now[0]), cast(Meter, SimpleNamespace(is_finite=True))
    meter.read = lambda: None  # type: ignore[method-assign]

    def batches() -> Iterator[int]:
        for number in range(500):
            now[0] += 0.001
            yield number

    assert len(list(watch.over(batches()))) == 500
    watch.after_epoch()
    watch.begin(cast(Learner, None), [], meter)
    began = now[0]
    looks.clear()
    for _ in range(6):
        now[0] += 0.5
        watch.after_step()
    assert [round(look - began, 6) for look in looks] == [0.5, 1.5, 2.5]
