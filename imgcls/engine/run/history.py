"""The epochs of a run: which is the best and whether it is over, as functions of them, with nothing to restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imgcls.config import TrainConfig
from imgcls.report import EvalReport

Row = dict[str, Any]  # one line of metrics.jsonl
Score = tuple[float, float]


def row_of(
    epoch: int, step: int, lr: float, trained: dict[str, Any], validated: EvalReport | None, seconds: float
) -> Row:
    """Return one line of metrics.jsonl, its names stable.

    Args:
        epoch: counts from 1.
        step: optimizer steps of the run so far.
        lr: learning rate of the last one.
        trained: what `Meter.epoch` says.
        validated: what was measured after the epoch; None: nothing.
        seconds: that the epoch took.
    """
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": trained["train_loss"],
        "train_acc": trained["train_acc"],
        "val_loss": validated.loss if validated else None,
        "val_acc": validated.accuracy if validated else None,
        "macro_f1": validated.macro_f1 if validated else None,
        "lr": lr,
        "images_per_second": trained["images_per_second"],
        "data_wait": trained["data_wait"],
        "seconds": seconds,
    }


def score(row: Row, monitor: str) -> Score:
    """Return how good an epoch is by `--monitor`, higher is better; without validation the last is the best.

    The second number decides between equal first ones, which are common where there are few validation images: of
    equal accuracies, or F1, the smaller loss is better.
    """
    if row["val_acc"] is None:
        return float(row["epoch"]), 0.0
    accuracy, loss = float(row["val_acc"]), float(row["val_loss"])
    if monitor == "val-loss":
        return -loss, accuracy
    return accuracy if monitor == "val-acc" else float(row["macro_f1"]), -loss


def scores(history: Sequence[Row], monitor: str, after_step: int = 0) -> list[Score]:
    """Return the scores of the epochs that ended after an optimizer step."""
    return [score(row, monitor) for row in history if row["step"] > after_step]


def is_best(row: Row, before: Sequence[Row], monitor: str) -> bool:
    """Tell whether an epoch is better than all before it."""
    return all(score(row, monitor) > score(old, monitor) for old in before)


def best_epoch(history: Sequence[Row], monitor: str) -> int:
    """Return which epoch is the best, counting from 1; 0 without epochs."""
    scores = [score(row, monitor) for row in history]
    return scores.index(max(scores)) + 1 if scores else 0


def ending(config: TrainConfig, history: Sequence[Row]) -> str | None:
    """Return why a run with these epochs behind it has ended, "all epochs" or "early stop"; None when it goes on.

    Early stopping counts the epochs since the best one, so an equal accuracy with a smaller loss is an improvement.
    """
    if len(history) >= config.epochs:
        return "all epochs"
    waited = len(history) - best_epoch(history, config.monitor)
    return "early stop" if history and config.early_stop is not None and waited >= config.early_stop else None


def is_over(config: TrainConfig, history: Sequence[Row]) -> bool:
    """Tell whether a run with these epochs behind it has ended, by length or by early stopping."""
    return ending(config, history) is not None
