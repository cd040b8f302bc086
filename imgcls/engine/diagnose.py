"""Findings about a running training: what its numbers say is wrong, the likely causes, and what to do.

Reads the epochs' metrics only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imgcls.config import TrainConfig
from imgcls.engine.metrics import wilson
from imgcls.schema import Finding

EPOCHS_TO_JUDGE = 3
STALLED = 0.98  # of the first epoch's loss
WELL_TRAINED, GAP = 0.85, 0.1  # training accuracy, and what validation may lie below it beyond chance
WAIT, SECONDS_WAITED = 0.1, 1.0  # share of an epoch, and what is worth a word


def findings(
    history: Sequence[dict[str, Any]], config: TrainConfig, val_images: int, cached: bool = False
) -> list[Finding]:
    """Judge the epochs so far; each finding is raised anew as long as it holds.

    Args:
        history: lines of metrics.jsonl.
        config: the run's settings, which name the likely causes.
        val_images: size of the validation split.
        cached: whether the images are decoded once for all epochs.
    """
    return [
        *_loss_not_decreasing(history, config),
        *_overfitting(history, config, val_images),
        *_data_wait(history, config, cached),
    ]


def diverged(epoch: int, first_step: int, last_step: int, config: TrainConfig, lr: float, mixed: bool) -> str:
    """Return the sentence for a loss that became NaN or infinite between two optimizer steps."""
    causes = [f"lower --lr (now {lr:.2g})"]
    causes += ["set --clip-grad 1"] if config.clip_grad is None else []
    causes += ["try --no-amp"] if mixed else []
    where = f"step {last_step}" if first_step >= last_step else f"steps {first_step} to {last_step}"
    return f"epoch {epoch}, {where}: the loss became NaN or infinite; {', '.join(causes)}"


def _loss_not_decreasing(history: Sequence[dict[str, Any]], config: TrainConfig) -> list[Finding]:
    losses = [row["train_loss"] for row in history]
    if len(losses) < EPOCHS_TO_JUDGE or min(losses[1:]) < STALLED * losses[0]:
        return []
    lr = max(row["lr"] for row in history)
    causes = [
        "the labels may be wrong (look at them: imgcls inspect-batch)",
        f"--lr {lr:.2g} may be too low or too high",
    ]
    if config.freeze_epochs:
        causes.append("the frozen backbone may not suit the images (lower --freeze-epochs)")
    message = f"the training loss does not decrease ({losses[0]:.4f} to {losses[-1]:.4f} in {len(losses)} epochs)"
    return [Finding("loss-not-decreasing", "warning", message, "; ".join(causes))]


def _overfitting(history: Sequence[dict[str, Any]], config: TrainConfig, val_images: int) -> list[Finding]:
    last = history[-1]
    if len(history) < EPOCHS_TO_JUDGE or last["train_acc"] is None or last["val_acc"] is None:
        return []
    highest = wilson(round(last["val_acc"] * val_images), val_images)[1]
    if last["train_acc"] < WELL_TRAINED or last["train_acc"] - highest < GAP:
        return []
    remedies = ["more images"]
    remedies += ["--augment strong"] if config.data.augment != "strong" else []
    remedies += ["--pretrained"] if config.data.pretrained is None and config.data.weights is None else []
    remedies += ["--dropout 0.2 or --weight-decay 1e-2"]
    message = f"training accuracy {last['train_acc']:.1%}, validation only {last['val_acc']:.1%}: overfitting"
    advice = f"try {', '.join(remedies)}; or the two splits differ in kind, or train holds near-copies of itself"
    return [Finding("overfitting", "warning", message, advice)]


def _data_wait(history: Sequence[dict[str, Any]], config: TrainConfig, cached: bool) -> list[Finding]:
    settled = history[1:] if config.epochs > 1 else history  # the first epoch starts the workers, reads the disk
    if not settled:
        return []
    share = sum(row["data_wait"] for row in settled) / len(settled)
    waited = sum(row["data_wait"] * row["seconds"] for row in settled) / len(settled)
    if share <= WAIT or waited < SECONDS_WAITED:
        return []
    if config.data.workers == 0:
        remedies = "raise --workers from 0"
    elif cached:
        remedies = "a lighter --augment costs less; where crops are random, more --workers help"
    else:
        remedies = "try --cache memory or --cache disk, raise --workers, store smaller images, or use a local disk"
    message = f"{share:.0%} of the time goes into waiting for images"
    return [Finding("data-wait", "warning", message, remedies)]
