"""Optimizer, learning rate and weight averaging; the learning rate is a function of the step, not a state.

Knows nothing of data and of the loop.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from imgcls.config import TrainConfig
from imgcls.models.build import Classifier, has_batch_norm
from imgcls.schema import Choice

REFERENCE_BATCH = 64  # the batch size that automatic learning rates are for
FINE_TUNED_GENTLY = ("vit_", "swin_", "maxvit_", "convnext_")
WARMUP_SHARE, MOST_WARMUP_EPOCHS = 0.05, 5
PLATEAU_PATIENCE = 3  # epochs


def choose_lr(config: TrainConfig, network: nn.Module, fine_tuning: bool, batch: int) -> Choice:
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
    gentle = fine_tuning and config.arch.startswith(FINE_TUNED_GENTLY)
    base, why = (1e-4, f"fine-tuning {config.arch}") if gentle else (3e-4, config.optimizer)
    return Choice("lr", base * math.sqrt(ratio), f"{why}: {base:g} x sqrt({batch}/{REFERENCE_BATCH})")


def choose_warmup(config: TrainConfig, steps_per_epoch: int) -> Choice:
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


def lr_factor(schedule: str, step: int, total: int, warmup: int, drops: int = 0) -> float:
    """Return the learning rate of an optimizer step as a share of the peak.

    Args:
        schedule: cosine, onecycle (the shape of torch's OneCycleLR), step, plateau or constant.
        step: counts from 0.
        total: steps of the whole run.
        warmup: steps of linear warm-up.
        drops: how often a plateau was met, for "plateau".
    """
    if schedule == "onecycle":
        return _one_cycle(step, total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    if schedule == "step":
        return 1.0 if step < total / 2 else 0.1 if step < total * 3 / 4 else 0.01
    return 0.1**drops if schedule == "plateau" else 1.0


def plateau_drops(scores: Sequence[tuple[float, float]]) -> int:
    """Return how many plateaus these epochs met: `PLATEAU_PATIENCE` in a row without a new best (higher is better)."""
    drops, waited, best = 0, 0, (-math.inf, -math.inf)
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == PLATEAU_PATIENCE:
            drops, waited = drops + 1, 0
    return drops


def build_optimizer(config: TrainConfig, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Build the optimizer over all parameters; frozen ones have no gradient and stay as they are."""
    parameters = list(network.parameters())
    shared: dict[str, Any] = {"lr": lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        # Never fused: after a step that the fp16 scaler skips, torch 2.15 reads momentum that was never written.
        return torch.optim.SGD(parameters, momentum=config.momentum, nesterov=config.nesterov, **shared)
    family = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    # On a GPU one kernel, and fp16 needs no look at the gradients; on a CPU no faster than torch's own choice.
    return family(parameters, fused=parameters[0].is_cuda or None, **shared)


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a state dict, which may come from another device or memory format, into a new optimizer.

    torch would take over `fused` and the strides of the file, with which fused kernels fail or err.
    """
    for theirs, ours in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        if "fused" in ours:
            theirs["fused"] = ours["fused"]
    optimizer.load_state_dict(saved)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value is not None and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)


class Ema:
    """An exponential moving average of a network's weights; buffers are copied.

    The decay grows with the steps, (1 + n) / (10 + n) up to 0.9999 (as in TensorFlow's moving averages), so that
    short runs are not held back by their first weights.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: Classifier, step: int) -> None:
        """Move the average towards `model` after optimizer step `step` (counts from 1)."""
        decay = min(0.9999, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)


def _one_cycle(step: int, total: int, start: float = 1 / 25, end: float = 1 / 25e4) -> float:
    if total == 1:
        return 1.0
    peak = 0.3 * total - 1
    if step <= peak:
        return _between(start, 1.0, step / peak)
    return _between(1.0, end, (step - peak) / max(1e-9, total - 1 - peak))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, share))))
