"""A run that was killed and resumed ends with the weights of one that was not; anything else is refused by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting import summarise
from small_runs import COLOURS, Killed, Run, draw, kill_in, of, run, same, started, tiny, warnings

from imgcls import checkpoint
from imgcls.engine import diagnose, run_folder
from imgcls.engine import train as train_module
from imgcls.engine.evaluate import evaluate
from imgcls.errors import CheckpointError, DataError, Exit, ImgclsError, UsageError
from imgcls.events import EpochEnded, Event
from imgcls.schema import EvalReport

pytest_plugins = ("small_runs",)

# Everything that draws random numbers or has a memory.
RANDOM: dict[str, Any] = {"epochs": 4, "augment": "strong", "dropout": 0.5, "ema": True, "schedule": "plateau"}
RANDOM |= {"mixup": 0.2, "batch_size": 5, "accumulate": 2, "limit": 12, "optimizer": "adamw"}


def interrupted(data: Path, out: Path, epoch: int = 3, **asked: Any) -> None:
    """Train until the middle of an epoch."""
    with pytest.raises(Killed):
        run(tiny(data, out=str(out), **asked), kill_in(epoch))


def resumed(data: Path, out: Path, **asked: Any) -> Run:
    return run(tiny(data, out=str(out), resume=True, **asked))


@pytest.fixture(scope="module")
def straight(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four epochs in one go."""
    return run(tiny(pictures, out=str(tmp_path_factory.mktemp("straight")), **RANDOM))


@pytest.fixture(scope="module")
def stopped(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, killed in the third epoch; to be copied."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    interrupted(pictures, folder, **RANDOM)
    return folder


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_equals_a_straight_one(pictures: Path, straight: Run, copy: Path, workers: int) -> None:
    """Bit by bit, with another number of loader processes too."""
    assert json.loads((copy / "config.json").read_text())["run"]["status"].startswith("failed")
    done = resumed(pictures, copy, **RANDOM | {"workers": workers})
    assert started(done.events).first_epoch == 3
    assert [row["epoch"] for row in done.epochs] == [3, 4]
    assert done.finished.epochs_run == 2
    for name in ("last.pt", "best.pt"):
        assert same(done.weights(name), straight.weights(name)), name
    first, second = (checkpoint.load(folder / "last.pt").training for folder in (straight.folder, done.folder))
    assert same(first["raw"], second["raw"])
    timed = ("seconds", "images_per_second", "data_wait")
    lines = [[{key: row[key] for key in row if key not in timed} for row in a.history] for a in (straight, done)]
    assert lines[0] == lines[1]
    assert [row["epoch"] for row in done.history] == [1, 2, 3, 4]
    assert json.loads((copy / "config.json").read_text())["run"]["status"] == "finished"


def test_resume_in_each_epoch_and_twice(pictures: Path, straight: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for epoch in (1, 1, 2, 4):  # in the first there is nothing to continue from yet
        with pytest.raises(Killed):
            run(tiny(pictures, out=str(folder), resume=True, **RANDOM), kill_in(epoch))
    assert same(resumed(pictures, folder, **RANDOM).weights(), straight.weights())


def in_older_form(path: Path) -> None:
    """Write a last.pt of `--ema` as it once was: the raw weights as the model, and the average beside them."""
    last = checkpoint.load(path)
    average = {f"network.{name}": tensor for name, tensor in last.model.items()}
    training = {name: value for name, value in last.training.items() if name != "raw"} | {"ema": average}
    checkpoint.save(path, replace(last, model=last.training["raw"], training=training))


def test_an_older_run_of_averaged_weights_goes_on_and_its_figures_are_of_the_average(
    pictures: Path, straight: Run, copy: Path
) -> None:
    in_older_form(copy / "last.pt")
    report = evaluate(str(pictures), str(copy / "last.pt"), device="cpu", workers=0, limit=12)
    stated = checkpoint.load(copy / "last.pt").card.metrics
    assert report.accuracy == stated["accuracy"]
    assert report.loss == pytest.approx(stated["loss"], rel=1e-6)
    assert same(resumed(pictures, copy, **RANDOM).weights(), straight.weights())


def test_config_json_keeps_what_was_decided_at_the_start(pictures: Path, straight: Run, copy: Path) -> None:
    done = resumed(pictures, copy, **RANDOM)
    both = [json.loads((folder / "config.json").read_text())["resolved"] for folder in (straight.folder, done.folder)]
    assert both[0].keys() == both[1].keys() >= {"size", "weights", "mean, std", "lr"}
    assert both[0]["size"] == both[1]["size"]


def test_a_finished_run_does_nothing(pictures: Path, straight: Run) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in straight.folder.iterdir()}
    done = resumed(pictures, straight.folder, **RANDOM)
    assert (done.finished.reason, done.finished.epochs_run) == ("already finished", 0)
    assert done.finished.card.epoch == straight.finished.card.epoch
    assert {path.name: path.stat().st_mtime_ns for path in straight.folder.iterdir()} == before


def test_a_run_killed_after_its_last_epoch_is_concluded(pictures: Path, tmp_path: Path) -> None:
    """A script that repeats the line until `status` says finished must come to an end."""

    def kill_at_the_end(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.metrics["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        run(tiny(pictures, out=str(tmp_path), epochs=2), kill_at_the_end)
    assert resumed(pictures, tmp_path, epochs=2).finished.reason == "already finished"
    assert json.loads((tmp_path / "config.json").read_text())["run"]["status"] == "finished"
    assert (tmp_path / "curves.png").exists()
    assert not (tmp_path / "last.prev.pt").exists()


def test_resume_starts_when_there_is_nothing_yet(pictures: Path, tmp_path: Path) -> None:
    assert resumed(pictures, tmp_path / "new").finished.epochs_run == 1


def planted(accuracies: list[float]) -> Any:
    """Return a validation that gives these accuracies, epoch by epoch."""

    def validate(state: Any, plan: Any, epoch: int, report: Any) -> EvalReport:
        hits = round(100 * accuracies[epoch - 1])
        return summarise(np.array([[hits, 100 - hits], [0, 0]]), 1.0, 0, ("a", "b"), "val")

    return validate


def test_best_stays_best_and_early_stop_goes_on_counting(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Best in epoch 2, killed in epoch 4 after one worse epoch, stopped two worse epochs later."""
    monkeypatch.setattr(train_module, "_validate", planted([0.5, 0.9, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8]))
    asked = {"epochs": 8, "early_stop": 3, "limit": 4}
    interrupted(pictures, tmp_path, epoch=4, **asked)
    best = (tmp_path / "best.pt").read_bytes()
    done = resumed(pictures, tmp_path, **asked)
    assert not any(event.best for event in of(done.events, EpochEnded))
    assert (tmp_path / "best.pt").read_bytes() == best
    assert done.finished.card.epoch == 2
    assert [row["epoch"] for row in done.history] == [1, 2, 3, 4, 5]
    assert done.finished.reason == "early stop"


# What may not change --------------------------------------------------------------------------------------------------


def refused(error: type[ImgclsError], code: Exit, words: str, data: Path, out: Path, **asked: Any) -> None:
    """Expect one line with these words, and every file as it was."""
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(error, match=words) as caught:
        resumed(data, out, **asked)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_other_settings_are_listed(pictures: Path, copy: Path) -> None:
    other = RANDOM | {"arch": "small-cnn", "seed": 7, "lr": 0.5}
    words = (
        r"other settings than the run's \(arch was simple-cnn, now small-cnn, seed was 0, now 7, lr was auto, now 0.5\)"
    )
    refused(UsageError, Exit.USAGE, words, pictures, copy, **other)


def test_other_classes_are_refused(copy: Path, tmp_path: Path) -> None:
    layout = {f"{split}/{name}": 4 for split in ("train", "val") for name in ("blue", "green", "yellow")}
    other = draw(tmp_path / "other", layout)
    refused(DataError, Exit.DATA, "the run's classes were blue, green, red; give its own --data", other, copy, **RANDOM)


def test_other_images_are_refused(pictures: Path, copy: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(pictures, tmp_path / "changed"))
    (changed / "train" / "red" / "000.png").unlink()
    refused(DataError, Exit.DATA, "images were added, removed or changed since", changed, copy, **RANDOM)


def test_another_number_of_processes_is_refused(pictures: Path, copy: Path) -> None:
    last = checkpoint.load(copy / "last.pt")
    checkpoint.save(copy / "last.pt", replace(last, training=last.training | {"processes": 2}))
    with pytest.raises(UsageError, match="the run has 2 processes, not 1"):
        resumed(pictures, copy, **RANDOM)


def test_the_data_may_have_moved(pictures: Path, straight: Run, copy: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(pictures, tmp_path / "moved"))
    assert same(resumed(moved, copy, **RANDOM).weights(), straight.weights())


def test_a_hold_out_stays_as_it_was(tmp_path: Path) -> None:
    """No validation folder: the images held out are those of the start, and the run goes on."""
    flat = draw(tmp_path / "flat", dict.fromkeys(COLOURS, 10))
    asked = {"epochs": 3}
    whole = run(tiny(flat, out=str(tmp_path / "whole"), **asked))
    interrupted(flat, tmp_path / "cut", **asked)
    done = resumed(flat, tmp_path / "cut", **asked)
    assert same(done.weights(), whole.weights())
    holdouts = [checkpoint.load(each.folder / "last.pt").holdout.tolist() for each in (whole, done)]
    assert holdouts[0] == holdouts[1] != []


# Other lengths --------------------------------------------------------------------------------------------------------


def test_more_epochs_warn(pictures: Path, copy: Path) -> None:
    done = resumed(pictures, copy, **RANDOM | {"epochs": 6})
    assert "--epochs was 4, now 6: the learning rate follows the new length from here" in warnings(done.events)
    assert [row["epoch"] for row in done.history] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_can_be_made_longer(pictures: Path, tmp_path: Path) -> None:
    run(tiny(pictures, out=str(tmp_path)))
    assert len(resumed(pictures, tmp_path, epochs=2).history) == 2


def test_onecycle_cannot_change_its_length(pictures: Path, tmp_path: Path) -> None:
    interrupted(pictures, tmp_path, epoch=2, epochs=2, schedule="onecycle")
    words = "--epochs 5: a onecycle run of 2 epochs cannot change length"
    refused(UsageError, Exit.USAGE, words, pictures, tmp_path, epochs=5, schedule="onecycle")


# Damage ---------------------------------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    """Cut a file to two thirds."""
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])


def test_a_damaged_checkpoint_gives_way_to_the_one_before(pictures: Path, straight: Run, copy: Path) -> None:
    damage(copy / "last.pt")
    done = resumed(pictures, copy, **RANDOM)
    (warning,) = [text for text in warnings(done.events) if "last.pt" in text]
    assert warning.endswith("; continuing from last.prev.pt")
    assert started(done.events).first_epoch == 2
    assert same(done.weights(), straight.weights())
    assert [row["epoch"] for row in done.history] == [1, 2, 3, 4]


def test_a_damaged_checkpoint_never_becomes_the_spare(
    pictures: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again in mid-save, after the spare was made of last.pt: one of both is still good."""
    damage(copy / "last.pt")

    def killed(path: Path, content: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.RunFolder, "save_best", lambda self, best: None)
        patch.setattr(checkpoint, "save", killed)
        with pytest.raises(Killed):
            resumed(pictures, copy, **RANDOM)
    assert len(resumed(pictures, copy, **RANDOM).history) == 4


def test_without_a_valid_checkpoint_it_refuses_to_start_again(pictures: Path, copy: Path) -> None:
    damage(copy / "last.pt")
    damage(copy / "last.prev.pt")
    words = "last.pt: .*; there is no other to resume from: type --overwrite to start again"
    refused(CheckpointError, Exit.CHECKPOINT, words, pictures, copy, **RANDOM)
    for name in ("last.pt", "last.prev.pt"):
        (copy / name).unlink()
    refused(CheckpointError, Exit.CHECKPOINT, "has best.pt but no last.pt", pictures, copy, **RANDOM)


def test_best_alone_cannot_be_continued(pictures: Path, copy: Path) -> None:
    (copy / "last.prev.pt").unlink()
    shutil.copy(copy / "best.pt", copy / "last.pt")
    refused(CheckpointError, Exit.CHECKPOINT, "has no optimizer state", pictures, copy, **RANDOM)


def test_findings_are_judged_over_the_whole_history(
    pictures: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def judge(history: list[Any], facts: Any) -> list[Any]:
        lengths.append(len(history))
        return []

    monkeypatch.setattr(diagnose, "findings", judge)
    resumed(pictures, copy, **RANDOM)
    assert lengths == [3, 4]
