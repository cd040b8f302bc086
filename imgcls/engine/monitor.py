"""Which epoch is the best and whether a run is over, as functions of its history: nothing to save or restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imgcls.config import TrainConfig

Row = dict[str, Any]  # one line of metrics.jsonl
Score = tuple[float, float]


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


def is_best(row: Row, before: Sequence[Row], monitor: str) -> bool:
    """Tell whether an epoch is better than all before it."""
    return all(score(row, monitor) > score(old, monitor) for old in before)


def best_epoch(history: Sequence[Row], monitor: str) -> int | None:
    """Return the epoch that is kept as the best; None when none was validated."""
    if not history or history[-1]["val_acc"] is None:
        return None
    best = [row["epoch"] for number, row in enumerate(history) if is_best(row, history[:number], monitor)]
    return int(best[-1])


def is_over(config: TrainConfig, history: Sequence[Row]) -> bool:
    """Tell whether a run with these epochs behind it has ended, by length or by early stopping.

    Early stopping counts the epochs since the best one, so an equal accuracy with a smaller loss is an improvement.
    """
    if config.early_stop is None or not history:
        return len(history) >= config.epochs
    scores = [score(row, config.monitor) for row in history]
    waited = len(scores) - 1 - scores.index(max(scores))
    return len(history) >= config.epochs or waited >= config.early_stop
