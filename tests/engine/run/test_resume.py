"""A run that was killed and resumed ends with the weights of one that was not; anything else is refused by name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from carrying import shows
from counting import summarise
from PIL import Image
from small_runs import COLOURS, Killed, Run, draw, kill_in, of, planted, run, same, started, tiny, warnings

from imgcls import checkpoint, registry
from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing, Source
from imgcls.engine.assess.evaluate import evaluate
from imgcls.engine.decide.inputs import decide_inputs
from imgcls.engine.run import diagnosis as diagnose
from imgcls.engine.run import folder as run_folder
from imgcls.engine.run import resume
from imgcls.engine.train import Validate, validate_epoch
from imgcls.errors import CheckpointError, DataError, Exit, ImgclsError, UsageError
from imgcls.events import EpochEnded, Event

pytest_plugins = ("small_runs",)

# Everything that draws random numbers or has a memory.
RANDOM: dict[str, Any] = {"epochs": 4, "augment": "strong", "dropout": 0.5, "ema": True, "schedule": "plateau"}
RANDOM |= {"mixup": 0.2, "batch_size": 5, "accumulate": 2, "limit": 12, "optimizer": "adamw"}


def interrupted(data: Path, out: Path, epoch: int = 3, validate: Validate = validate_epoch, **asked: Any) -> None:
    """Train until the middle of an epoch."""
    with pytest.raises(Killed):
        run(tiny(data, out=str(out), **asked), kill_in(epoch), validate=validate)


def resumed(data: Path, out: Path, validate: Validate = validate_epoch, **asked: Any) -> Run:
    return run(tiny(data, out=str(out), resume=True, **asked), validate=validate)


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
@shows("train", "resume")
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


def accuracies(*shares: float) -> Validate:
    """Return a validation that gives these accuracies, epoch by epoch."""
    hits = [round(100 * share) for share in shares]
    return planted(*(summarise(np.array([[right, 100 - right], [0, 0]]), 1.0, 0, ("a", "b"), "val") for right in hits))


def test_best_stays_best_and_early_stop_goes_on_counting(pictures: Path, tmp_path: Path) -> None:
    """Best in epoch 2, killed in epoch 4 after one worse epoch, stopped two worse epochs later."""
    asked: dict[str, Any] = {"epochs": 8, "early_stop": 3, "limit": 4}
    asked["validate"] = accuracies(0.5, 0.9, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8)
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
    asked: dict[str, Any] = {"epochs": 3}
    whole = run(tiny(flat, out=str(tmp_path / "whole"), **asked))
    interrupted(flat, tmp_path / "cut", **asked)
    done = resumed(flat, tmp_path / "cut", **asked)
    assert same(done.weights(), whole.weights())
    holdouts = [checkpoint.load(each.folder / "last.pt").holdout.tolist() for each in (whole, done)]
    assert holdouts[0] == holdouts[1] != []
    contents = [checkpoint.load(each.folder / "last.pt").holdout_content.tolist() for each in (whole, done)]
    assert contents[0] == contents[1]
    assert len(contents[0]) == len(holdouts[0])


def test_other_pictures_of_the_same_names_and_sizes_are_refused(tmp_path: Path) -> None:
    """Uncompressed files: the fingerprint over names and sizes does not tell them apart."""
    for root, seed in (("first", 0), ("second", 1)):
        flat = draw(tmp_path / root, dict.fromkeys(COLOURS, 10), seed=seed)
        for path in flat.rglob("*.png"):
            with Image.open(path) as image:
                image.save(path.with_suffix(".bmp"))
            path.unlink()
    interrupted(tmp_path / "first", tmp_path / "cut", epochs=3)
    with pytest.raises(DataError, match="images were added, removed or changed since"):
        resumed(tmp_path / "second", tmp_path / "cut", epochs=3)


def digits(root: str) -> Source:
    """Stand in for a data set by name, in which a label is corrected one day."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(16) % 2
    labels[3] = 0 if root == "corrected" else 1
    listing = Listing("mnist/train", ArrayImages.of("train", pixels), labels, ("0", "1"))
    return Source(f"mnist in {root}", {"train": lambda: listing}, dataset="mnist")


@pytest.mark.parametrize("recorded", ["images and labels", "images, as older versions did"])
def test_a_corrected_label_is_noticed_where_folders_do_not_tell(
    recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.DATASETS, "mnist", f"{__name__}:digits")
    interrupted(Path("mnist"), tmp_path, epochs=3)
    if recorded != "images and labels":
        for path in (tmp_path / "last.pt", tmp_path / "best.pt"):
            of_images, _, of_labels = (old := checkpoint.load(path)).card.data_fingerprint.partition(".")
            assert of_labels
            checkpoint.save(path, replace(old, card=replace(old.card, data_fingerprint=of_images)))
    else:
        words = "images were added, removed or changed since, or their labels"
        refused(DataError, Exit.DATA, words, Path("mnist:corrected"), tmp_path, epochs=3)
    before = checkpoint.load(tmp_path / "last.pt").card.data_fingerprint
    assert resumed(Path("mnist"), tmp_path, epochs=3).finished.epochs == 3
    after = [checkpoint.load(tmp_path / name).card.data_fingerprint for name in ("last.pt", "best.pt")]
    assert after == [before, before], "else best.pt of an earlier epoch would count as another run's"


# Other draws ----------------------------------------------------------------------------------------------------------


def with_older_draws(path: Path) -> None:
    """Write a checkpoint as it was before it said with which draws it was made."""
    old = checkpoint.load(path)
    checkpoint.save(path, replace(old, card=replace(old.card, run=without(old.card.run, "draws"))))


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


OTHER_DRAWS = (
    "the run was begun with other draws of augmentation (version 1, now 2); its coming epochs draw anew, so it ends "
    "with other weights than an uninterrupted run"
)


def test_a_run_of_older_draws_goes_on_from_its_next_epoch_and_says_so(
    pictures: Path, straight: Run, copy: Path
) -> None:
    assert checkpoint.load(copy / "last.pt").card.run["draws"] == [{"version": 2, "from_epoch": 1}]
    for name in ("last.pt", "best.pt"):
        with_older_draws(copy / name)
        evaluate(str(pictures), str(copy / name), device="cpu", workers=0, limit=12)
    done = resumed(pictures, copy, **RANDOM)
    assert warnings(done.events) == [f"--resume --out {copy}: {OTHER_DRAWS}"]
    assert started(done.events).first_epoch == 3
    recorded = [{"version": 1, "from_epoch": 1}, {"version": 2, "from_epoch": 3}]
    for name in ("last.pt", "best.pt"):
        card = checkpoint.load(copy / name).card
        assert card.run.get("draws") == (recorded if card.epoch >= 3 else None)
    longer = resumed(pictures, copy, **RANDOM | {"epochs": 5})
    assert not any("draws" in warning for warning in warnings(longer.events)), "said once"
    assert checkpoint.load(copy / "last.pt").card.run["draws"] == recorded


@pytest.mark.parametrize("asked", [{}, {"flip": True, "alternate_flip": True}])
def test_a_run_that_draws_nothing_has_nothing_to_say(pictures: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    """Without augmentation, and with flips that alternate: their coming epochs are the same with any draws."""
    whole = run(tiny(pictures, out=str(tmp_path / "whole"), epochs=3, **asked))
    interrupted(pictures, tmp_path / "cut", epochs=3, **asked)
    with_older_draws(tmp_path / "cut" / "last.pt")
    done = resumed(pictures, tmp_path / "cut", epochs=3, **asked)
    assert warnings(done.events) == []
    assert same(done.weights(), whole.weights())


def test_a_finished_run_of_older_draws_does_nothing(pictures: Path, straight: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(straight.folder, tmp_path / "run"))
    with_older_draws(folder / "last.pt")
    done = resumed(pictures, folder, **RANDOM)
    assert (done.finished.reason, warnings(done.events)) == ("already finished", [])


def test_an_epoch_that_was_begun_with_other_draws_is_known(pictures: Path, straight: Run) -> None:
    """What stopping in mid-epoch has to ask: it could only be begun anew."""
    card = checkpoint.load(straight.folder / "last.pt").card
    older = replace(card, run=without(card.run, "draws"))
    later = replace(card, run=card.run | {"draws": [{"version": 3, "from_epoch": 1}]})
    drawing, still = (decide_inputs(tiny(pictures, augment=kind)).augmentation for kind in ("strong", "none"))
    assert [resume.other_draws(each, drawing) for each in (card, older, later)] == [None, 1, 3]
    assert [resume.other_draws(each, still) for each in (card, older, later)] == [None, None, None]


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


# What has become of best.pt -------------------------------------------------------------------------------------------

PLANTED = accuracies(0.5, 0.9, 0.6, 0.7, 0.8, 0.65, 0.95)  # the second of the first six is the best
planted_run = partial(run, validate=PLANTED)
planted_interrupted = partial(interrupted, validate=PLANTED)
planted_resumed = partial(resumed, validate=PLANTED)


@pytest.fixture(scope="module")
def three(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs, the second of them the best; to be copied."""
    folder = tmp_path_factory.mktemp("three") / "run"
    planted_run(tiny(pictures, epochs=3, limit=4, out=str(folder)))
    return folder


def kept(folder: Path) -> tuple[int, float]:
    """The epoch in best.pt and the accuracy that it states."""
    card = checkpoint.load(folder / "best.pt").card
    return card.epoch, card.metrics["accuracy"]


def spoil(best: Path, how: str) -> None:
    """Do to best.pt what happens to files."""
    if how == "missing":
        best.unlink()
    elif how == "cut":
        damage(best)
    else:
        best.write_bytes(b"" if how == "empty" else bytes(best.stat().st_size))


@pytest.mark.parametrize("how", ["missing", "cut", "empty", "zeroed"])
def test_without_a_best_pt_the_best_of_what_is_left_is_kept(
    pictures: Path, three: Path, tmp_path: Path, how: str
) -> None:
    """Said at the start; best.pt is there from then on, with the weights and figures of one epoch."""
    folder = Path(shutil.copytree(three, tmp_path / "run"))
    spoil(folder / "best.pt", how)
    before = (folder / "best.pt").read_bytes() if how != "missing" else None
    seen: list[tuple[int, float]] = []

    def look(event: Event) -> None:
        if isinstance(event, EpochEnded):
            seen.append(kept(folder))

    done = planted_run(tiny(pictures, epochs=6, limit=4, out=str(folder), resume=True), look)
    (warning,) = [text for text in warnings(done.events) if "best.pt: " in text]
    assert warning.startswith(f"{folder / 'best.pt'}: is missing" if how == "missing" else f"{folder / 'best.pt'}: ")
    assert "the best, epoch 2, is lost: the last, 3, takes its place until a later one is better" in warning
    assert seen == [(4, 0.7), (5, 0.8), (5, 0.8)]
    assert (done.finished.card.epoch, done.finished.best_epoch, done.finished.epochs) == (5, 2, 6)
    assert done.finished.card.metrics["accuracy"] == 0.8
    if before is not None:
        assert (folder / "best.damaged.pt").read_bytes() == before
    again = planted_resumed(pictures, folder, epochs=6, limit=4)
    assert (again.finished.reason, again.finished.card.epoch) == ("already finished", 5)
    assert not warnings(again.events)
    assert planted_resumed(pictures, folder, epochs=7, limit=4).finished.card.epoch == 7


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_finished_run_without_a_best_pt_gets_its_last_epoch(
    pictures: Path, three: Path, tmp_path: Path, how: str
) -> None:
    """A script that repeats the line until it succeeds comes to an end, and finds the file that is named."""
    folder = Path(shutil.copytree(three, tmp_path / "run"))
    spoil(folder / "best.pt", how)
    asked: dict[str, Any] = {"epochs": 3, "limit": 4}
    done = planted_resumed(pictures, folder, **asked)
    assert (done.finished.reason, done.finished.epochs_run) == ("already finished", 0)
    assert kept(folder) == (3, 0.6)
    assert same(done.weights("best.pt"), done.weights("last.pt"))
    assert checkpoint.load(folder / "best.pt").training == {}
    assert any("takes its place" in text for text in warnings(done.events))
    again = planted_resumed(pictures, folder, **asked)
    assert (again.finished.reason, warnings(again.events)) == ("already finished", [])


@pytest.mark.parametrize("ema", [False, True])
def test_the_last_epoch_where_it_is_the_best_is_made_anew_from_last_pt(
    pictures: Path, tmp_path: Path, ema: bool
) -> None:
    validate = accuracies(0.5, 0.6, 0.55)
    done = run(tiny(pictures, epochs=2, limit=4, ema=ema, out=str(tmp_path)), validate=validate)
    weights = done.weights("best.pt")
    (tmp_path / "best.pt").unlink()
    longer = resumed(pictures, tmp_path, validate, epochs=3, limit=4, ema=ema)
    assert f"{tmp_path}/best.pt: is missing; the best, epoch 2, is the last: it is made anew from last.pt" in (
        warnings(longer.events)
    )
    assert kept(tmp_path) == (2, 0.6)
    assert same(longer.weights("best.pt"), weights)


def test_what_is_not_of_this_run_is_refused_and_left_alone(pictures: Path, three: Path, tmp_path: Path) -> None:
    """Another run's checkpoint, one of another epoch under this epoch's number, a folder, a link to nowhere."""
    folder = Path(shutil.copytree(three, tmp_path / "run"))
    best = folder / "best.pt"
    mine = checkpoint.load(best)
    other = planted_run(tiny(pictures, epochs=2, limit=4, lr=0.5, out=str(tmp_path / "other"))).folder / "best.pt"
    forged = replace(mine, card=replace(mine.card, metrics=mine.card.metrics | {"accuracy": 0.95}))
    checkpoint.save(tmp_path / "forged.pt", forged)
    checkpoint.save(tmp_path / "later.pt", replace(mine, card=replace(mine.card, epoch=5)))
    for foreign in (other, tmp_path / "forged.pt", tmp_path / "later.pt"):
        shutil.copy(foreign, best)
        words = "best.pt: is of another run than last.pt; move it away and repeat the line"
        refused(CheckpointError, Exit.CHECKPOINT, words, pictures, folder, epochs=6, limit=4)
    best.unlink()
    for kind in ("folder", "dangling link"):
        best.mkdir() if kind == "folder" else best.symlink_to("nowhere")
        with pytest.raises(CheckpointError, match=r"best\.pt: is no regular file; move it away and repeat the line"):
            planted_resumed(pictures, folder, epochs=6, limit=4)
        assert os.path.lexists(best)
        best.rmdir() if best.is_dir() else best.unlink()
    assert planted_resumed(pictures, folder, epochs=4, limit=4).finished.card.epoch == 4


def test_a_best_pt_that_vanishes_while_the_run_goes_on_is_made_of_what_is_left(
    pictures: Path, three: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(three, tmp_path / "run"))

    def vanish(event: Event) -> None:
        if isinstance(event, EpochEnded):
            (folder / "best.pt").unlink(missing_ok=True)

    done = planted_run(tiny(pictures, epochs=5, limit=4, out=str(folder), resume=True), vanish)
    assert kept(folder) == (5, 0.8)
    assert done.finished.card.epoch == 5
    assert any("best.pt: is missing; the best, epoch 2, is lost" in text for text in warnings(done.events))


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("which", ["last", "best"])
def test_a_kill_within_a_save_changes_neither_file_in_the_end(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, which: str
) -> None:
    """Before or after the first of the two files is saved; in the first epoch, too."""
    asked: dict[str, Any] = {"epochs": 3, "limit": 4}
    whole = planted_run(tiny(pictures, out=str(tmp_path / "whole"), **asked))

    def kill(save: Any) -> Any:
        def killing(self: Any, content: Any) -> None:
            if content.card.epoch == epoch:
                raise Killed
            save(self, content)

        return killing

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        name = f"save_{which}"
        patch.setattr(run_folder.RunFolder, name, kill(getattr(run_folder.RunFolder, name)))
        planted_run(tiny(pictures, out=str(tmp_path / "cut"), **asked))
    done = planted_resumed(pictures, tmp_path / "cut", **asked)
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole") == (2, 0.9)
    for name in ("best.pt", "last.pt"):
        assert same(done.weights(name), whole.weights(name))
    assert [row["epoch"] for row in done.history] == [1, 2, 3]


def test_a_damaged_last_pt_behind_a_newer_best_pt_repeats_that_epoch(pictures: Path, tmp_path: Path) -> None:
    planted_interrupted(pictures, tmp_path, epoch=3, epochs=3, limit=4)
    weights = checkpoint.load(tmp_path / "best.pt").model
    damage(tmp_path / "last.pt")
    done = planted_resumed(pictures, tmp_path, epochs=3, limit=4)
    assert kept(tmp_path) == (2, 0.9)
    assert same(done.weights("best.pt"), weights)
    assert not any("best.pt" in text for text in warnings(done.events))


# Early stopping -------------------------------------------------------------------------------------------------------


def test_an_early_stop_is_said_and_a_larger_one_goes_on(pictures: Path, tmp_path: Path) -> None:
    """To the weights of a run that was so patient from the start."""
    asked: dict[str, Any] = {"epochs": 7, "limit": 4}
    stopped = planted_run(tiny(pictures, early_stop=2, out=str(tmp_path / "run"), **asked))
    assert (stopped.finished.reason, stopped.finished.stopped_early) == ("early stop", True)
    assert (stopped.finished.epochs, stopped.finished.best_epoch) == (4, 2)
    values = json.loads((tmp_path / "run" / "config.json").read_text())["run"]
    assert (values["status"], values["ended"]) == ("finished", "early stop")
    again = planted_resumed(pictures, tmp_path / "run", early_stop=2, **asked | {"epochs": 20})
    assert (again.finished.reason, again.finished.stopped_early) == ("already finished", True)
    patient = planted_run(tiny(pictures, early_stop=4, out=str(tmp_path / "patient"), **asked))
    longer = planted_resumed(pictures, tmp_path / "run", early_stop=4, **asked)
    assert (longer.finished.epochs, longer.finished.reason) == (6, "early stop")
    assert same(longer.weights(), patient.weights())
    end = planted_resumed(pictures, tmp_path / "run", early_stop="auto", **asked)
    assert (end.finished.epochs, end.finished.reason, end.finished.stopped_early) == (7, "all epochs", False)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["run"]["ended"] == "all epochs"
    assert same(end.weights(), planted_run(tiny(pictures, out=str(tmp_path / "all"), **asked)).weights())


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
