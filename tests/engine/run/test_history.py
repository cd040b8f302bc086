"""Which epoch is kept and when a run ends, on planted histories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from carrying import shows
from counting import summarise
from small_runs import of, planted, run, tiny

from imgcls import checkpoint, plots
from imgcls.engine.run.history import best_epoch, is_best, is_over, score
from imgcls.events import EpochEnded
from imgcls.report import EvalReport

pytest_plugins = ("small_runs",)


def measured(confusion: Sequence[Sequence[int]], loss: float) -> EvalReport:
    table = np.array(confusion)
    return summarise(table, loss * float(table.sum()), 0, ("a", "b"), "val")


# Accuracy is best in epoch 1, macro F1 in epoch 2, loss in epoch 3.
PLANTED = (
    measured([[90, 0], [10, 0]], 0.9),
    measured([[70, 20], [1, 9]], 0.8),
    measured([[60, 30], [5, 5]], 0.3),
    measured([[60, 30], [5, 5]], 0.7),
)


@pytest.mark.parametrize(("monitor", "epoch"), [("val-acc", 1), ("macro-f1", 2), ("val-loss", 3)])
@shows("train", "monitor")
def test_monitor_chooses_the_epoch_that_is_kept(pictures: Path, tmp_path: Path, monitor: str, epoch: int) -> None:
    done = run(
        tiny(pictures, monitor=monitor, epochs=4, limit=4, out=str(tmp_path / "run")), validate=planted(*PLANTED)
    )
    assert done.finished.card.epoch == epoch
    assert [event.metrics["epoch"] for event in of(done.events, EpochEnded) if event.best][-1] == epoch
    kept = checkpoint.load(done.folder / "best.pt").card
    assert (kept.epoch, kept.metrics["accuracy"]) == (epoch, PLANTED[epoch - 1].accuracy)
    assert checkpoint.load(done.folder / "last.pt").card.epoch == 4


@pytest.mark.parametrize(("monitor", "epoch"), [("val-acc", 1), ("macro-f1", 2), ("val-loss", 3)])
def test_the_curves_mark_the_epoch_that_is_kept(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitor: str, epoch: int
) -> None:
    marked: list[int | None] = []
    monkeypatch.setattr(plots, "curves", lambda history, best: marked.append(best))
    monkeypatch.setattr(plots, "save", lambda figure, path: path.touch())
    done = run(
        tiny(pictures, monitor=monitor, epochs=4, limit=4, out=str(tmp_path / "run")),
        curves=True,
        validate=planted(*PLANTED),
    )
    assert marked == [epoch] == [done.finished.card.epoch]


def test_without_validation_the_last_epoch_is_the_best() -> None:
    assert best_epoch([{"epoch": 1, "val_acc": None}, {"epoch": 2, "val_acc": None}], "val-acc") == 2
    assert best_epoch([], "val-acc") == 0


@pytest.mark.parametrize(
    ("monitor", "patience", "ended"),
    [("val-acc", 1, 2), ("val-acc", 2, 3), ("macro-f1", 1, 3), ("val-loss", 1, 4), ("val-acc", "auto", 4)],
)
@shows("train", "early_stop")
def test_early_stop_ends_the_run(pictures: Path, tmp_path: Path, monitor: str, patience: Any, ended: int) -> None:
    """After as many epochs without improvement, by what `--monitor` says."""
    done = run(
        tiny(pictures, monitor=monitor, early_stop=patience, epochs=4, limit=4, out=str(tmp_path / "run")),
        validate=planted(*PLANTED),
    )
    assert len(done.history) == ended
    assert done.finished.reason == ("all epochs" if ended == 4 else "early stop")


def row(epoch: int, val_acc: float | None, val_loss: float = 1.0, macro_f1: float = 0.0) -> dict[str, Any]:
    return {"epoch": epoch, "val_acc": val_acc, "val_loss": val_loss, "macro_f1": macro_f1}


def test_an_equal_epoch_is_no_better() -> None:
    assert is_best(row(1, 0.5), [], "val-acc")
    assert not is_best(row(2, 0.5), [row(1, 0.5)], "val-acc")
    assert is_best(row(2, 0.6), [row(1, 0.5)], "val-acc")


@pytest.mark.parametrize("monitor", ["val-acc", "macro-f1"])
def test_of_equal_accuracies_the_smaller_loss_is_better(monitor: str) -> None:
    """For best.pt, early stopping and plateaus alike; never against a better accuracy."""
    first = row(1, 0.9, 0.5, 0.9)
    assert is_best(row(2, 0.9, 0.4, 0.9), [first], monitor)
    assert not is_best(row(2, 0.9, 0.6, 0.9), [first], monitor)
    assert not is_best(row(2, 0.8, 0.1, 0.8), [first], monitor)
    assert is_best(row(2, 0.95, 0.9, 0.95), [first], monitor)
    config = tiny(".", early_stop=2, epochs=9, monitor=monitor)
    falling = [row(epoch, 0.9, 1 / epoch, 0.9) for epoch in (1, 2, 3, 4)]
    assert not is_over(config, falling)
    assert is_over(config, [*falling, row(5, 0.9, 0.3, 0.9), row(6, 0.9, 0.26, 0.9)])
    assert not is_over(config, [*falling, row(5, 0.9, 0.3, 0.9), row(6, 0.9, 0.24, 0.9)])


def test_of_equal_losses_the_better_accuracy_is_better() -> None:
    assert is_best(row(2, 0.9, 0.5), [row(1, 0.8, 0.5)], "val-loss")
    assert not is_best(row(2, 0.9, 0.6), [row(1, 0.8, 0.5)], "val-loss")


@pytest.mark.parametrize("losses", [(0.9, 0.3, 0.5), (0.3, 0.9, 0.3)])
def test_the_checkpoint_kept_of_equal_accuracies_is_that_of_the_smallest_loss(
    pictures: Path, tmp_path: Path, losses: tuple[float, ...]
) -> None:
    reports = [measured([[9, 1], [1, 9]], loss) for loss in losses]
    done = run(tiny(pictures, epochs=3, limit=4, out=str(tmp_path / "run")), validate=planted(*reports))
    assert done.finished.card.epoch == 1 + losses.index(0.3)
    assert done.finished.card.metrics["loss"] == pytest.approx(0.3)


def test_without_validation_the_last_epoch_is_the_best_and_nothing_stops_early() -> None:
    history = [row(epoch, None) for epoch in (1, 2, 3)]
    assert is_best(row(4, None), history, "val-acc")
    assert not is_over(tiny(".", early_stop=1, epochs=4), history)
    assert score(row(2, None), "val-loss") == (2, 0)


def test_a_run_without_epochs_has_only_begun() -> None:
    assert not is_over(tiny(".", early_stop=1, epochs=4), [])
    assert not is_over(tiny(".", epochs=4), [])


def test_without_validation_best_is_last(tmp_path: Path, pictures: Path) -> None:
    done = run(tiny(pictures / "train", val_split=0, epochs=2, out=str(tmp_path / "run")))
    assert done.finished.card.epoch == 2
    assert done.finished.card.metrics == {}
    assert [line["val_acc"] for line in done.history] == [None, None]
