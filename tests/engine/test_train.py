"""`train` from end to end: what it reports, in which order, what it refuses, and that two processes equal one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from carrying import shows
from ranks import two_processes
from small_runs import Seen, built, close, draw, of, run, same, started, tiny, warnings

from imgcls import checkpoint
from imgcls.engine import train as train_module
from imgcls.engine.assess.evaluate import evaluate
from imgcls.engine.learn.epoch import start_statistics
from imgcls.engine.learn.learner import Learner
from imgcls.engine.run import header
from imgcls.errors import DataError, Exit, ResourceError, UsageError, counted
from imgcls.events import EpochEnded, Event, Said, Started, Stepped
from imgcls.machine import SPINS, THREAD_NUMBERS, WAITS, available_cpus
from imgcls.models.classifier import Classifier
from imgcls.paths import holds_run

pytest_plugins = ("small_runs",)


def test_the_events_of_a_run_in_order(pictures: Path, tmp_path: Path) -> None:
    done = run(tiny(pictures, epochs=2, out=str(tmp_path / "run")))
    kinds = [type(event) for event in done.events if isinstance(event, (Started, Stepped, EpochEnded))]
    assert kinds == [Started, Stepped, Stepped, EpochEnded, Stepped, Stepped, EpochEnded]
    phases = [(event.epoch, event.phase, event.batch, event.batches) for event in of(done.events, Stepped)]
    assert phases == [(1, "train", 3, 3), (1, "val", 2, 2), (2, "train", 3, 3), (2, "val", 2, 2)]
    event = started(done.events)
    assert (event.first_epoch, event.epochs, event.out) == (1, 2, str(tmp_path / "run"))
    assert event.images == {"train": 24, "val": 12}
    assert done.finished.reason == "all epochs"
    assert done.finished.seconds > 0


def test_colours_are_learnt(pictures: Path, tmp_path: Path) -> None:
    done = run(tiny(pictures, epochs=8, lr=3e-3, out=str(tmp_path / "run")))
    assert done.finished.card.metrics["accuracy"] >= 0.9


def test_the_same_line_gives_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    asked = {"augment": "strong", "dropout": 0.3, "epochs": 2}
    first, second = (run(tiny(pictures, **asked, out=str(tmp_path / name))) for name in "ab")
    assert close(first.weights(), second.weights(), 0)


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@shows("train", "dry_run")
def test_a_dry_run_writes_nothing(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    """But everything is built, two validation batches and two steps run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.pt").write_text("of a run before")
    before = files(tmp_path), files(pictures)
    asked = {"tensorboard": True, "batch_size": 4, "accumulate": 2, "dry_run": True, "overwrite": True}
    for out in ("auto", "run"):
        done = run(tiny(pictures, out=out, **asked))
    assert (files(tmp_path), files(pictures)) == before
    assert (done.finished.reason, done.finished.out, done.finished.best) == ("dry run", None, None)
    assert started(done.events).out is None
    assert len(seen.lrs) == 2 * 2
    assert [len(batch) for batch in seen.train] == [4] * 4 * 2
    assert [len(batch) for batch in seen.val] == [4] * 2 * 2


def test_nothing_is_ever_written_into_the_data_folder(pictures: Path, tmp_path: Path) -> None:
    before = files(pictures)
    run(tiny(pictures, out=str(tmp_path / "run")))
    assert files(pictures) == before


def test_a_damaged_validation_image_is_found_before_the_first_step(tmp_path: Path, seen: Seen) -> None:
    data = draw(tmp_path / "data", {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2})
    (data / "val" / "a" / "001.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"val/a/001\.png: .*: replace or remove the file"):
        run(tiny(data, out=str(tmp_path / "run")))
    assert not seen.train
    assert not (tmp_path / "run").exists()


def test_a_damaged_training_image_stops_the_run_and_is_named(tmp_path: Path) -> None:
    data = draw(tmp_path / "data", {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2})
    (data / "train" / "a" / "001.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train/a/001\.png") as caught:
        run(tiny(data, size=16, out=str(tmp_path / "run")))
    assert caught.value.exit_code == Exit.DATA
    status = json.loads((tmp_path / "run" / "config.json").read_text())["run"]["status"]
    assert status.startswith("failed: ")
    assert "001.png" in status


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["CUDA", "CPU"],
)
def test_out_of_memory_is_one_line_and_the_status_says_so(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def full(*args: Any) -> None:
        raise error

    monkeypatch.setattr(Learner, "backward", full)
    sentence = "out of memory on cpu: lower --batch-size 8 and raise --accumulate to match, or lower --size"
    with pytest.raises(ResourceError, match=f"^{sentence}$") as caught:
        run(tiny(pictures, out=str(tmp_path)))
    assert caught.value.exit_code == Exit.RESOURCES
    assert json.loads((tmp_path / "config.json").read_text())["run"]["status"] == f"failed: {sentence}"


def test_a_clock_that_jumps_changes_nothing(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back by an hour whenever it is asked, as when a machine's clock is set or summer time ends."""
    steady = run(tiny(pictures, epochs=2, out=str(tmp_path / "steady")))
    now = [time.time()]

    def jumping() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", jumping)
    done = run(tiny(pictures, epochs=2, out=str(tmp_path / "jumping"), time_limit=60))
    assert same(done.weights(), steady.weights())
    assert all(0 < row["seconds"] < 60 and 0 <= row["data_wait"] <= 1 for row in done.history)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"train/a": 3}, "only one class, 'a'"),
        ({"train/a": 3, "train/b": 0}, "no images of class 'b'"),
        ({"train/a": 1, "train/b": 1}, "too few images to hold some out"),
        ({"train/a": 1, "train/b": 1, "val/a": 0}, "no images"),
    ],
)
def test_too_little_data_is_refused(tmp_path: Path, layout: dict[str, int], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        run(tiny(draw(tmp_path / "data", layout), out=str(tmp_path / "run")))
    assert caught.value.exit_code == Exit.DATA
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batch_size", [4, 8, 64])  # a last batch of one image, all but one in the first, and fewer
def test_batch_norm_trains_on_nine_images(tmp_path: Path, batch_size: int) -> None:
    """With a stem that ends in one pixel, a batch of one would be refused by torch."""
    data = draw(tmp_path / "data", {"train/a": 5, "train/b": 4, "val/a": 1, "val/b": 1})
    done = run(tiny(data, arch="bn-cnn", size=8, batch_size=batch_size, out=str(tmp_path / "run")))
    assert done.history[0]["step"] == -(-9 // batch_size)


def test_only_a_fresh_network_gets_its_statistics_from_the_first_batch(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not weights that come with statistics of their own, and not a run that goes on."""
    given: list[str | None] = []

    def watched(model: Classifier, *rest: Any) -> None:
        given.append(config.out)
        start_statistics(model, *rest)

    monkeypatch.setattr(train_module, "start_statistics", watched)
    fresh = tiny(pictures, arch="bn-cnn", limit=8, out=str(tmp_path / "fresh"))
    weights = str(tmp_path / "fresh" / "best.pt")
    tuned = tiny(pictures, arch="bn-cnn", limit=8, out=str(tmp_path / "tuned"), weights=weights)
    for config in (fresh, tuned, replace(fresh, epochs=2, resume=True)):
        run(config)
    assert given == [fresh.out]


# What is said without being asked -------------------------------------------------------------------------------------


def test_the_recipe_in_one_line(pictures: Path) -> None:
    asked = {"epochs": 7, "optimizer": "sgd", "lr": 0.02, "label_smoothing": 0.1, "mixup": 0.2, "ema": True}
    b = built(tiny(pictures, **asked, warmup_epochs=1, accumulate=2))
    assert header.recipe(b.run) == (
        "7 epochs, sgd lr 0.02 cosine, 2 warm-up steps, weight decay 0.0001, batch 8 x 2 x 1 = 16, augment none, "
        "label smoothing 0.1, mixup 0.2, EMA on"
    )


def test_several_gpus_and_one_process(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    b = built(tiny(pictures))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert header.advice(b.run) == []
    (said,) = header.advice(replace(b.run, device=torch.device("cuda")))
    line = "torchrun --standalone --nproc-per-node 4 -m imgcls train …"
    assert said == Said(f"using one of 4 GPUs; to use all: {line}")


def test_a_clean_run_warns_of_nothing(pictures: Path, tmp_path: Path) -> None:
    assert warnings(run(tiny(pictures, out=str(tmp_path / "run"))).events) == []


def test_an_interrupt_keeps_the_finished_epochs(pictures: Path, tmp_path: Path) -> None:
    from imgcls.errors import Interrupted

    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.epoch == 2:
            raise Interrupted(15)

    with pytest.raises(Interrupted):
        run(tiny(pictures, epochs=3, out=str(tmp_path)), stop)
    assert json.loads((tmp_path / "config.json").read_text())["run"]["status"] == "interrupted"
    assert checkpoint.load(tmp_path / "last.pt").card.epoch == 1


def test_a_wrong_device_is_refused_before_the_folder_is_made(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--device tpu: not known"):
        run(tiny(pictures, device="tpu", out=str(tmp_path / "run")))
    assert not holds_run(tmp_path / "run")


# Two processes --------------------------------------------------------------------------------------------------------


def test_two_processes_equal_one(seven: Path, tmp_path: Path) -> None:
    """Same global batch, no BatchNorm: 7 images on 2 ranks are 7, in training and in validation (5)."""
    asked: dict[str, Any] = {"optimizer": "sgd", "lr": 0.005, "epochs": 2, "class_weights": "balanced"}
    asked |= {"augment": "standard"}
    # No --monitor here: torchrun takes it for an abbreviation of its own --monitor-interval (seen in Python 3.11).
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "imgcls", "train"]
    fixed = {
        "data": seven,
        "arch": "simple-cnn",
        "batch_size": 2,
        "workers": 0,
        "device": "cpu",
        "out": tmp_path / "two",
    }
    for name, value in (fixed | asked).items():
        line += ["--" + name.replace("_", "-"), str(value)]
    environment = {name: value for name, value in os.environ.items() if name not in (*THREAD_NUMBERS, *WAITS)}
    done = subprocess.run([sys.executable, *line], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cpus = available_cpus()
    why = f"{counted(cpus, 'CPU')} for 2 processes; GOMP_SPINCOUNT={SPINS}"
    assert f"threads      {max(1, cpus // 2)} ({why})" in done.stderr, "not the one that torchrun sets"
    one = run(tiny(seven, batch_size=4, **asked, out=str(tmp_path / "one")))
    two = checkpoint.load(tmp_path / "two" / "last.pt")
    assert close(one.weights(), two.model, 1e-5)
    history = [json.loads(text) for text in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in history] == [row["step"] for row in one.history] == [2, 4]
    for mine, theirs in zip(one.history, history, strict=True):
        assert (mine["val_acc"], mine["train_acc"]) == (theirs["val_acc"], theirs["train_acc"])
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], rel=1e-5)
        assert theirs["val_loss"] == pytest.approx(mine["val_loss"], rel=1e-5)
    assert checkpoint.load(tmp_path / "two" / "best.pt").card.metrics["images"] == 5
    assert done.stdout.count("checkpoint: ") == 1, "one process talks"


@pytest.mark.parametrize("images", [13, 14, 15])  # of a last batch: 1, 2 or 3 images for two processes
def test_two_processes_train_batch_norm_on_any_number_of_images(tmp_path: Path, images: int) -> None:
    """At 32 px one pixel is left in the end, and torch refuses the statistics of one image."""
    data = draw(tmp_path / "data", {"train/a": images - 6, "train/b": 6, "val/a": 1, "val/b": 1})
    config = tiny(data, arch="shufflenet_v2_x0_5", size=32, batch_size=6, out=str(tmp_path / "run"))
    assert two_processes(config) == [0, 0]


@pytest.mark.parametrize("ema", [False, True])
def test_two_processes_validate_the_batch_norm_statistics_that_they_save(
    pictures: Path, tmp_path: Path, ema: bool
) -> None:
    """Each process has seen other batches; `evaluate` must find what was stored all the same."""
    config = tiny(pictures, arch="bn-cnn", limit=12, batch_size=3, lr=1e-2, ema=ema, out=str(tmp_path))
    assert two_processes(config) == [0, 0]
    for name in ("best.pt", "last.pt"):
        stored = checkpoint.load(tmp_path / name).card.metrics
        report = evaluate(str(pictures), str(tmp_path / name), device="cpu", workers=0, limit=12)
        assert (report.images, report.accuracy) == (stored["images"], stored["accuracy"])
        assert report.loss == pytest.approx(stored["loss"], rel=1e-6)
