"""One pass over the training images: forward, backward, step. The loss leaves the device only for a report.

Knows neither files nor validation.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from imgcls.config import TrainConfig
from imgcls.data import draws
from imgcls.data.batch import Batch, to_device
from imgcls.engine.decide.data import training_batches
from imgcls.engine.decide.plan import Plan, State
from imgcls.engine.learn.mixing import mix
from imgcls.engine.learn.optimizers import lr_factor
from imgcls.engine.run import diagnosis as diagnose
from imgcls.errors import DivergedError
from imgcls.events import REPORT_SECONDS, Report, Said, Stepped
from imgcls.models.build import MOMENTUM, batch_norms, head, last_layers

STEPS_TO_ESTIMATE = 20


def train_epoch(
    state: State, plan: Plan, epoch: int, drops: int, report: Report, most_batches: int | None = None
) -> dict[str, Any]:
    """Train for one epoch.

    Args:
        state: is changed.
        plan: the run's constants.
        epoch: counts from 1.
        drops: of the learning rate at plateaus so far.
        report: receives progress a few times a second.
        most_batches: stop after this many (dry run).

    Returns:
        train_loss, train_acc (None when labels are mixed), lr, images_per_second, data_wait.

    Raises:
        DivergedError: the loss is NaN or infinite.
    """
    config, device, world = plan.config, plan.device, plan.world
    model = _ready(state, plan, is_frozen(config, epoch))
    total = min(len(plan.batches), most_batches or len(plan.batches))
    window_weights = step_weights(plan, epoch)
    mixing = bool(config.mixup or config.cutmix)
    sums = torch.zeros(2, device=device)  # loss, right answers
    checked_step, images_seen, lr = state.step, 0, 0.0
    began = reported = time.monotonic()
    batches = _Timed(islice(plan.batches.epoch(epoch), total))
    for number, batch in enumerate(to_device(batches, device), start=1):
        closes_step = number % config.accumulate == 0 or number == len(plan.batches)
        images, labels, real = batch.images, batch.labels, batch.real
        _seed_dropout(device, draws.step_seed(config.seed, epoch, number, world.rank))
        share = 1.0
        if mixing:
            images, share = mix(images, config.mixup, config.cutmix, draws.generator(config.seed, epoch, number))
        with _unsynchronised(model, closes_step):
            with torch.autocast(device.type, plan.amp, enabled=plan.amp is not None):
                logits = model(images)
            loss = _loss(logits.float(), labels, real, share, plan)
            # DDP averages gradients over processes; the loss is a sum over all of them, divided once.
            scaled = loss * (world.size / window_weights[(number - 1) // config.accumulate])
            state.scaler.scale(scaled).backward()
        sums += torch.stack([loss.detach(), ((logits.argmax(1) == labels) & real).sum()])
        images_seen += len(labels) * world.size
        if closes_step:
            lr = plan.peak_lr * lr_factor(
                config.schedule, state.step, plan.steps_per_epoch * config.epochs, plan.warmup_steps, drops
            )
            _step(state, lr, config.clip_grad)
        now = time.monotonic()
        if now - reported > REPORT_SECONDS or number == total:
            reported = now
            loss_sum = sums[0].item()
            if not np.isfinite(loss_sum):
                steps = (checked_step + 1, max(1, state.step))
                raise DivergedError(diagnose.diverged(epoch, *steps, config, plan.peak_lr, plan.amp is not None))
            checked_step = state.step
            mean = loss_sum / (window_weights.sum() / world.size * number / len(plan.batches))
            report(Stepped(epoch, "train", number, total, mean, images_seen / max(1e-9, now - began)))
        if number == STEPS_TO_ESTIMATE and epoch == 1 and device.type == "cpu" and not config.compile:
            report(Said(f"expected time on this CPU: {_duration((now - began) / number * total * config.epochs)}"))
    # BatchNorm's statistics are of each process's own batches: validate those that are saved, the first one's.
    world.spread([*state.model.buffers(), *state.validated.buffers()])
    seconds = max(1e-9, time.monotonic() - began)
    count = plan.batches.order.bounds[total]
    loss_sum, right = world.sum(sums).tolist()
    done = -(-total // config.accumulate)
    return {
        "train_loss": loss_sum / float(window_weights[:done].sum()),
        "train_acc": None if mixing else right / count,
        "lr": lr,
        "images_per_second": count / seconds,
        "data_wait": batches.waited / seconds,
    }


def start_statistics(state: State, plan: Plan) -> None:
    """Set a fresh BatchNorm's running statistics to those of the first batch, in place of mean 0 and variance 1.

    What is left of that 1 after a few dozen steps still exceeds the variances of some networks (1e-3 and less), which
    then validate at chance: mobilenet_v3_small on 600 drawn images, 50 steps, three seeds: trained to 56 %, validated
    at 20 % of five classes; started like this, at 52 %.

    Args:
        state: its model is changed, and is in train mode afterwards.
        plan: its first batch is loaded, whole on each process, so that all begin with the same.
    """
    layers = batch_norms(state.model)
    if not layers:
        return
    batches = training_batches(replace(plan.prepared, workers=0), plan.config)
    batch = next(to_device(batches.epoch(1), plan.device))
    for layer in layers:
        layer.momentum = 1.0
    with torch.no_grad():
        state.model.train()(batch.images)
    for layer in layers:
        layer.momentum = MOMENTUM


def is_frozen(config: TrainConfig, epoch: int) -> bool:
    """Tell whether the backbone is frozen in this epoch."""
    return config.freeze_epochs == "all" or epoch <= config.freeze_epochs


def step_weights(plan: Plan, epoch: int) -> npt.NDArray[np.float64]:
    """Return what the loss of each optimizer step is divided by: the label weights of all its images.

    Over accumulation and processes alike, so a split batch equals a whole one. Known before the epoch begins,
    because the order is a function. float64 [optimizer steps].
    """
    order = plan.batches.order
    labels = plan.batches.labels[order.of(epoch)]
    weights = plan.class_weights.cpu().numpy().astype(np.float64)[labels]
    return np.add.reduceat(weights, order.bounds[:-1][:: plan.config.accumulate])


def _ready(state: State, plan: Plan, frozen: bool) -> nn.Module:
    """Set train mode and what learns. A frozen backbone stays in eval mode: BatchNorm, dropout and all."""
    network = state.model.network
    state.model.train(not frozen)
    last_layers(network).train()
    network.requires_grad_(not frozen)
    head(network)[1].requires_grad_(True)
    model = plan.part(state.forward, network)
    if plan.world.size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[plan.device] if plan.device.type == "cuda" else None)


def _loss(logits: torch.Tensor, labels: torch.Tensor, real: torch.Tensor, share: float, plan: Plan) -> torch.Tensor:
    """Return the sum over the images of the weighted cross-entropy; `share` of it for their own labels.

    An image's loss is its smoothed cross-entropy times the weight of the label it is compared with. torch's own
    `weight=` would weigh the smoothed share of each *other* class by that class's weight: of 300 and 6 images the
    rare class is then answered for all.
    """

    def summed(targets: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(logits, targets, label_smoothing=plan.config.label_smoothing, reduction="none")
        return (losses * plan.class_weights[targets] * real).sum()

    if share == 1.0:
        return summed(labels)
    return share * summed(labels) + (1 - share) * summed(labels.roll(1, 0))


def _step(state: State, lr: float, clip_grad: float | None) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    if clip_grad is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), clip_grad)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.ema is not None:
        state.ema.update(state.model, state.step)


def _seed_dropout(device: torch.device, seed: int) -> None:
    # torch.manual_seed would do, at 264 us a step; a device's own generator takes 3 us.
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _unsynchronised(model: nn.Module, closes_step: bool) -> contextlib.AbstractContextManager[None]:
    """Let DDP exchange gradients only in the last batch of an optimizer step."""
    if isinstance(model, DistributedDataParallel) and not closes_step:
        return model.no_sync()
    return contextlib.nullcontext()


class _Timed:
    """Batches, and the seconds they were waited for."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches, self.waited = batches, 0.0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            began = time.monotonic()
            batch = next(self.batches, None)
            self.waited += time.monotonic() - began
            if batch is None:
                return
            yield batch


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
