"""How fast is learnt: the peak learning rate and the length of its warm-up."""

from __future__ import annotations

import math

from torch import nn

from imgcls.config import TrainConfig
from imgcls.data.splits import Splits
from imgcls.distributed import World
from imgcls.models.families import is_fine_tuned_gently
from imgcls.models.surgery import has_batch_norm
from imgcls.schema import Choice

REFERENCE_BATCH = 64  # the batch size that automatic learning rates are for
WARMUP_SHARE, MOST_WARMUP_EPOCHS = 0.05, 5


def images_per_step(config: TrainConfig, splits: Splits, world: World) -> int:
    """Return the images of an optimizer step over all processes; no step reaches into the next epoch."""
    return min(config.batch_size * config.accumulate * world.size, len(splits.train.images))


def choose_lr(config: TrainConfig, network: nn.Module, fine_tuning: bool, batch: int) -> Choice[float]:
    """Decide the peak learning rate.

    The adam family scales with the square root of the batch (Malladi et al. 2022), SGD linearly (Goyal et al. 2017).

    Args:
        config: `lr`, `optimizer` and the architecture count.
        network: whether it has BatchNorm counts.
        fine_tuning: whether training starts from trained weights.
        batch: images per optimizer step over all processes, no more than there are.
    """
    if config.lr is not None:
        return Choice("lr", config.lr, "as asked")
    ratio = batch / REFERENCE_BATCH
    if config.optimizer == "sgd":
        gentle = fine_tuning or not has_batch_norm(network)
        base, why = (0.01, "SGD, fine-tuning or no BatchNorm") if gentle else (0.1, "SGD from scratch")
        return Choice("lr", base * ratio, f"{why}: {base:g} x {batch}/{REFERENCE_BATCH}")
    gentle = fine_tuning and is_fine_tuned_gently(config.arch)
    base, why = (1e-4, f"fine-tuning {config.arch}") if gentle else (3e-4, config.optimizer)
    return Choice("lr", base * math.sqrt(ratio), f"{why}: {base:g} x sqrt({batch}/{REFERENCE_BATCH})")


def choose_warmup(config: TrainConfig, steps_per_epoch: int) -> Choice[int]:
    """Decide the length of the linear warm-up, in optimizer steps; at least one step after it has the full rate."""
    if config.schedule == "onecycle":
        return Choice("warmup_steps", 0, "onecycle warms up itself")
    if config.warmup_epochs is None:
        steps = min(WARMUP_SHARE * config.epochs, MOST_WARMUP_EPOCHS) * steps_per_epoch
        return Choice("warmup_steps", round(steps), "5 % of the steps, at most 5 epochs")
    total = config.epochs * steps_per_epoch
    most = -(-total // (2 if config.schedule == "step" else 1)) - 1  # "step" lowers the rate at half of the run
    steps = round(config.warmup_epochs * steps_per_epoch)
    return Choice("warmup_steps", min(steps, most), "as asked" if steps <= most else "as asked, but for the last step")
