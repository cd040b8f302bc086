"""Findings about a running training: what its numbers say is wrong, the likely causes, and what to do.

Reads the epochs' metrics, the settings and how many images each class has; sees neither images nor weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from imgcls.config import TrainConfig
from imgcls.data.batch import Data
from imgcls.engine.run.history import is_over
from imgcls.engine.run.run import Run
from imgcls.errors import counted
from imgcls.intervals import wilson
from imgcls.machine import available_cpus
from imgcls.models.families import published
from imgcls.models.surgery import has_batch_norm
from imgcls.schema import Finding

EPOCHS_TO_JUDGE = 3
STALLED = 0.98  # of the first epoch's loss
LEARNT, WELL_LEARNT = 0.9, 0.7  # of the loss of guessing: below it something was learnt, or clearly so
# Times the loss of guessing each class alike. Three small networks on noise, photographs and CIFAR-10 trained from
# scratch at 1.1 times that at most, and validated at 8.9 times at most after they had learnt noise by heart; with
# --lr 100 the first epoch trained at 13,000 times or more and validated at 100 times or more.
TRAINING_EXPLODED, VALIDATION_EXPLODED = 10, 100
WELL_TRAINED, GAP = 0.85, 0.1  # training accuracy, and what validation may lie below it beyond chance
WAIT, SECONDS_WAITED = 0.1, 1.0  # share of an epoch, and what is worth a word

STRONG_DECAY, STRONG_DROPOUT, STRONG_SMOOTHING, TIGHT_CLIP = 1.0, 0.7, 0.5, 0.01  # beyond what recipes use

SHOWN = 3  # images of a step that are named

AT_THE_END_TOO = ("loss-exploded", "validation-at-chance")  # said again when the run ends, beside its result


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What stays fixed in a run, and its numbers are judged by.

    Attributes:
        config: the settings, which name the likely causes.
        lr: peak learning rate, asked for or automatic.
        warmup_steps: optimizer steps in which it is not reached yet.
        train: training images per class, int64 [classes].
        val: validation images per class, int64 [classes]; None: none.
        held_out: whether validation is a part of the training folder.
        label_weights: what the loss is weighted by, float [classes].
        batch_norm: whether there is BatchNorm, which validates by statistics that it gathers in training.
        could_be_pretrained: whether there are published weights that were not used.
        cached: whether the images are decoded once for all epochs.
    """

    config: TrainConfig
    lr: float
    warmup_steps: int
    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64] | None
    held_out: bool
    label_weights: npt.NDArray[np.float64]
    batch_norm: bool
    could_be_pretrained: bool
    cached: bool

    @property
    def guessing(self) -> float:
        """The training loss of a network that knows how frequent each class is and no more, in nats.

        Under mixup and cutmix too: the labels are mixed, and on average they stay as frequent as they were.
        """
        shares = self.train * self.label_weights / (self.train * self.label_weights).sum()
        smoothing = self.config.label_smoothing
        shares = (1 - smoothing) * shares + smoothing / len(shares)
        return float(-(shares * np.log(np.where(shares > 0, shares, 1))).sum())


def facts_of(run: Run, data: Data, network: nn.Module) -> Facts:
    """Return the facts of a run."""
    config, splits, pretrained = run.config, run.inputs.splits, run.card.pretrained
    return Facts(
        config=config,
        lr=run.schedule.peak,
        warmup_steps=run.schedule.warmup,
        train=splits.train.counts(),
        val=splits.val.counts() if splits.val else None,
        held_out=len(splits.holdout) > 0,
        label_weights=run.task.weights.double().cpu().numpy(),
        batch_norm=has_batch_norm(network) and config.freeze_epochs != "all",
        could_be_pretrained=(pretrained.asked, pretrained.used, pretrained.missing) == ("auto", None, False)
        and published(config.arch) is not None,
        cached=data.train.nbytes > 0,
    )


class Diagnosis:
    """Raises each finding once, and some again beside the result of the run."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._raised: set[str] = set()

    def new(self, history: Sequence[dict[str, Any]]) -> list[Finding]:
        """Return what is to be said after an epoch."""
        ends = is_over(self._facts.config, history)
        found = [
            finding
            for finding in findings(history, self._facts)
            if finding.code not in self._raised or (ends and finding.code in AT_THE_END_TOO)
        ]
        self._raised |= {finding.code for finding in found}
        return found


def findings(history: Sequence[dict[str, Any]], facts: Facts) -> list[Finding]:
    """Judge the epochs so far, lines of metrics.jsonl; each finding is raised anew as long as it holds."""
    return [
        *(_exploded(history[-1], facts) or _loss_not_decreasing(history, facts)),
        *_stopped_in_warm_up(history, facts),
        *(_at_chance(history, facts) or _overfitting(history, facts)),
        *_data_wait(history, facts),
    ]


def diverged(run: Run, epoch: int, step: int, images: Sequence[str] = ()) -> str:
    """Return the sentence for a loss, or its gradient, that became NaN or infinite.

    Args:
        run: its settings name the likely causes.
        epoch: counts from 1.
        step: optimizer step, from 1.
        images: paths of those of the step; none: it was found in validation.
    """
    causes = [*_calming(run.config, run.schedule.peak), *(["try --no-amp"] if run.amp is not None else [])]
    what = "the loss or its gradient became NaN or infinite" if images else "the network gives NaN in validation"
    seen = f" on {', '.join(images[:SHOWN])}" if images else ""
    more = f" and {len(images) - SHOWN} more (config.json lists them)" if len(images) > SHOWN else ""
    return f"epoch {epoch}, step {step}: {what}{seen}{more}; {', '.join(causes)}"


def lower_lr(config: TrainConfig, lr: float) -> str:
    """Return what to do about a peak learning rate that is too high; one that nobody set cannot be lowered."""
    if config.lr is None:
        return f"set --lr below {lr:.3g}, the automatic learning rate"
    return f"lower --lr (now {config.lr:g})"


def _calming(config: TrainConfig, lr: float) -> list[str]:
    """Return what may keep a loss from growing beyond all bounds."""
    decay = f"lower --weight-decay (now {config.weight_decay:g})"
    clip = "set --clip-grad 1"
    strong, unclipped = config.weight_decay >= STRONG_DECAY, config.clip_grad is None
    return [*([decay] if strong else []), lower_lr(config, lr), *([clip] if unclipped else [])]


def _exploded(row: dict[str, Any], facts: Facts) -> list[Finding]:
    guessing = math.log(len(facts.train))
    training, validation = row["train_loss"], row["val_loss"]
    causes = _calming(facts.config, facts.lr)
    if training > TRAINING_EXPLODED * guessing:
        message = f"the training loss of {training:.3g} is far above that of guessing ({guessing:.3g})"
    elif validation is not None and validation > VALIDATION_EXPLODED * guessing:
        message = f"the validation loss of {validation:.3g} is far above that of guessing ({guessing:.3g})"
        causes = [*_unfilled(facts), *causes]
    else:
        return []
    return [Finding("loss-exploded", "warning", message, ", or ".join(causes))]


def _loss_not_decreasing(history: Sequence[dict[str, Any]], facts: Facts) -> list[Finding]:
    losses, config = [row["train_loss"] for row in history], facts.config
    if len(losses) < EPOCHS_TO_JUDGE or history[-1]["step"] <= facts.warmup_steps:
        return []
    first, before, last, guessing = losses[0], losses[-EPOCHS_TO_JUDGE], losses[-1], facts.guessing
    if min(losses) < LEARNT * guessing:
        return []
    if min(losses[1:]) >= STALLED * first:
        message = f"the training loss does not decrease ({first:.4f} to {last:.4f} in {len(losses)} epochs)"
    elif last >= STALLED * max(before, guessing):
        message = f"the training loss stays at {last:.4f} after {len(losses)} epochs, no better than guessing"
        message += f" ({guessing:.4f})"
    else:
        return []
    causes = []
    if facts.warmup_steps > history[-1]["step"] / 2:
        causes.append(f"{facts.warmup_steps} of these {history[-1]['step']} steps were warm-up (lower --warmup-epochs)")
    causes.append(f"{_rate(config, facts.lr)} may be too low or too high")
    if mixing := _typed(mixup=config.mixup, cutmix=config.cutmix):
        causes.append(f"{mixing} makes it harder to learn: try without")
    else:
        causes.append("the labels may be wrong (look at them: imgcls inspect-batch)")
    if config.freeze_epochs == "all" or len(history) <= config.freeze_epochs:
        causes.append("the frozen backbone may not suit the images (lower --freeze-epochs)")
    if strong := _typed(
        dropout=config.dropout if (config.dropout or 0) >= STRONG_DROPOUT else None,
        weight_decay=config.weight_decay if config.weight_decay >= STRONG_DECAY else None,
        label_smoothing=config.label_smoothing if config.label_smoothing >= STRONG_SMOOTHING else None,
        clip_grad=config.clip_grad if (config.clip_grad or 1) < TIGHT_CLIP else None,
    ):
        causes.append(f"{strong} may be too strong")
    return [Finding("loss-not-decreasing", "warning", message, "; ".join(causes))]


def _stopped_in_warm_up(history: Sequence[dict[str, Any]], facts: Facts) -> list[Finding]:
    step = history[-1]["step"]
    if step > facts.warmup_steps or not is_over(facts.config, history):
        return []
    message = f"stopped early, after {step} of {facts.warmup_steps} warm-up steps: the learning rate was never reached"
    return [Finding("stopped-in-warm-up", "warning", message, "raise --early-stop, or lower --warmup-epochs")]


def _at_chance(history: Sequence[dict[str, Any]], facts: Facts) -> list[Finding]:
    """Compare the last validations with always answering their most frequent class, as far as the images can tell."""
    last, config = history[-1], facts.config
    if facts.val is None or (len(history) < EPOCHS_TO_JUDGE and not is_over(config, history)):
        return []
    images, answered = int(facts.val.sum()), facts.val.max() / facts.val.sum()
    bounds = [wilson(round(row["val_acc"] * images), images) for row in history[-EPOCHS_TO_JUDGE:]]
    if max(low for low, _ in bounds) > answered:
        return []
    if last["train_acc"] is not None:
        seen = int(facts.train.sum())
        surely = wilson(round(last["train_acc"] * seen), seen)[0]
        if surely < facts.train.max() / seen + GAP or last["train_acc"] < bounds[-1][1] + GAP:
            return []
        training = f"training accuracy is {_percent(last['train_acc'])}"
    elif last["train_loss"] < WELL_LEARNT * facts.guessing:
        training = f"the training loss is {last['train_loss']:.4f}, that of guessing {facts.guessing:.4f}"
    else:
        return []
    causes = [*_unfilled(facts)]
    causes += ["the average of --ema may lag behind in so few steps"] if config.ema else []
    if not facts.held_out:
        causes.append("the validation images or labels may be of another kind (look: imgcls inspect-batch --split val)")
    causes.append("or training learns its images by heart, and nothing in them tells the classes apart")
    message = (
        f"validation accuracy {_percent(last['val_acc'])} after {len(history)} epochs is no better than chance (always "
        f"answering the most frequent class: {_percent(answered)} of {images} images), while {training}"
    )
    return [Finding("validation-at-chance", "warning", message, "; ".join(causes))]


def _overfitting(history: Sequence[dict[str, Any]], facts: Facts) -> list[Finding]:
    last, config = history[-1], facts.config
    if len(history) < EPOCHS_TO_JUDGE or last["train_acc"] is None or facts.val is None:
        return []
    images = int(facts.val.sum())
    highest = wilson(round(last["val_acc"] * images), images)[1]
    if last["train_acc"] < WELL_TRAINED or last["train_acc"] - highest < GAP:
        return []
    remedies = ["more images"]
    remedies += ["--augment strong"] if config.augment != "strong" else []
    remedies += ["--pretrained"] if facts.could_be_pretrained else []
    remedies += ["more --dropout or --weight-decay"]
    train, val = _percent(last["train_acc"]), _percent(last["val_acc"])
    message = f"training accuracy {train}, validation only {val}: overfitting"
    advice = f"try {', '.join(remedies)}; or the two splits differ in kind, or train holds near-copies of itself"
    return [Finding("overfitting", "warning", message, advice)]


def _data_wait(history: Sequence[dict[str, Any]], facts: Facts) -> list[Finding]:
    config = facts.config
    settled = history[1:] if config.epochs > 1 else history  # the first epoch starts the workers, reads the disk
    if not settled:
        return []
    share = sum(row["data_wait"] for row in settled) / len(settled)
    waited = sum(row["data_wait"] * row["seconds"] for row in settled) / len(settled)
    if share <= WAIT or waited < SECONDS_WAITED:
        return []
    if config.workers == 0:
        remedies = "raise --workers from 0"
    elif config.workers is not None and config.workers > 2 * available_cpus():
        remedies = f"lower --workers {config.workers}: there are {counted(available_cpus(), 'CPU')}"
    elif facts.cached:
        remedies = "a lighter --augment costs less; where crops are random, more --workers help"
    else:
        remedies = "try --cache memory or --cache disk, raise --workers, store smaller images, or use a local disk"
    message = f"{100 * share:.1f} % of the time goes into waiting for images"
    return [Finding("data-wait", "warning", message, remedies)]


def _rate(config: TrainConfig, lr: float) -> str:
    """Return the learning rate in words that say who chose it."""
    return f"the automatic learning rate of {lr:.3g} (set --lr)" if config.lr is None else f"--lr {config.lr:g}"


def _unfilled(facts: Facts) -> list[str]:
    few = "BatchNorm's statistics may not be those of the data yet (more --epochs or a smaller --batch-size fill them)"
    return [few] if facts.batch_norm else []


def _typed(**values: float | None) -> str:
    """Return the options that are not 0 or None as they would be typed."""
    return " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in values.items() if value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
