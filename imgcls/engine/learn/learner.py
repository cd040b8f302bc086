"""What learns: a network, its optimizer and the average of its weights. One call of `learn` is one optimizer step.

Knows neither images in files nor files of a run.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from imgcls.config import TrainConfig
from imgcls.data import draws
from imgcls.data.batch import Batch
from imgcls.engine.learn.averaging import Average
from imgcls.engine.learn.mixing import mix
from imgcls.engine.learn.optimizers import build_optimizer, restore_optimizer
from imgcls.engine.learn.window import Window
from imgcls.engine.run.run import Run
from imgcls.models.classifier import Classifier
from imgcls.models.state import load_state
from imgcls.models.surgery import head, last_layers


class Learner:
    """A network in training.

    Attributes:
        model: uint8 [B, 3, S, S] to logits [B, classes].
        step: optimizer steps done.
        is_between_steps: nothing of the next one has been learnt; a part of one moves BatchNorm's statistics already.
        epoch: that has begun, from 1.
        drops: of the learning rate at plateaus so far.
    """

    def __init__(self, run: Run, model: Classifier, on_features: bool = False) -> None:
        """Begin with fresh optimizer state.

        Args:
            run: settings, device and processes.
            model: is changed from now on.
            on_features: the batches hold the features of a frozen backbone, and go through the last layers alone.
        """
        config, device = run.config, run.device
        self.run, self.model, self.on_features = run, model, on_features
        self.optimizer = build_optimizer(config, model.network, run.schedule.peak)
        self.scaler = torch.amp.GradScaler(device.type, enabled=run.amp is torch.float16)
        self.average = Average(model) if config.ema else None
        self.step, self.epoch, self.drops = 0, 0, 0
        self.is_between_steps = True
        compiled: nn.Module = torch.compile(model, dynamic=False) if config.compile else model  # type: ignore[assignment]
        self._inner: nn.Module = last_layers(model.network) if on_features else compiled
        self._forward, self._is_frozen, self._is_rehearsed = self._inner, False, True

    @property
    def validated(self) -> Classifier:
        """The model that is validated and kept: the average with `--ema`."""
        return self.average.model if self.average else self.model

    @property
    def lr(self) -> float:
        """The learning rate of the last optimizer step."""
        return self.run.schedule.lr(max(0, self.step - 1), self.drops)

    def begin(self, epoch: int) -> None:
        """Get ready for an epoch, from 1. A frozen backbone stays in eval mode: BatchNorm, dropout and all."""
        self.epoch = epoch
        network, frozen = self.model.network, is_frozen(self.run.config, epoch)
        self.model.train(not frozen)
        last_layers(network).train()
        network.requires_grad_(not frozen)
        head(network)[1].requires_grad_(True)
        # DDP exchanges the gradients of what could learn when it was made: anew when the backbone thaws.
        if self.run.world.size > 1 and (self._forward is self._inner or frozen != self._is_frozen):
            devices = [self.run.device] if self.run.device.type == "cuda" else None
            self._forward, self._is_rehearsed = DistributedDataParallel(self._inner, device_ids=devices), False
        self._is_frozen = frozen

    def learn(self, window: Window) -> torch.Tensor:
        """Make one optimizer step.

        Returns:
            The loss and the right answers, summed over this process's images, and the norm of the gradient, that of
            all processes: float32 [3], on the device.
        """
        sums = self.gradient(window)
        return torch.cat([sums, self.update()[None]])

    def gradient(self, window: Window) -> torch.Tensor:
        """Add up the gradient of a window, that of all processes in each.

        Returns:
            The loss and the right answers, summed over this process's images: float32 [2].
        """
        sums = torch.zeros(2, device=self.run.device)
        for number, batch in window.batches:
            if not self._is_rehearsed:
                self._rehearse(batch)
            with self._exchange(number == window.end):
                sums += self.backward(number, batch, window.weight)
        return sums

    def _rehearse(self, batch: Batch) -> None:
        """Let DDP see once in which order gradients come, and forget them.

        It sorts by this order what it adds up together, after a first backward pass. Without a rehearsal the first step
        of three processes or more would be rounded otherwise, and with it the one after each stop.
        """
        before = [buffer.clone() for buffer in self.model.buffers()]
        with torch.autocast(self.run.device.type, self.run.amp, enabled=self.run.amp is not None):
            torch.autograd.backward(self._forward(batch.images).float().sum())
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, kept in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(kept)
        self._is_rehearsed = True

    def backward(self, number: int, batch: Batch, weight: float) -> torch.Tensor:
        """Add a batch's part to the gradient; returns its loss and right answers, float32 [2]."""
        run, config = self.run, self.run.config
        self.is_between_steps = False
        _seed_dropout(run.device, draws.step_seed(config.seed, self.epoch, number, run.world.rank))
        images, own_share = batch.images, 1.0
        if config.mixes_labels:
            generator = draws.generator(config.seed, self.epoch, number)
            images, own_share = mix(images, config.mixup, config.cutmix, generator)
        with torch.autocast(run.device.type, run.amp, enabled=run.amp is not None):
            logits = self._forward(images)
        loss = self.loss(images, logits.float(), batch, own_share)
        # DDP averages gradients over processes; the loss is a sum over all of them, divided once.
        torch.autograd.backward(self.scaler.scale(loss * (run.world.size / weight)))
        return torch.stack([loss.detach(), run.task.right(logits, batch.labels, batch.real)])

    def loss(self, images: torch.Tensor, logits: torch.Tensor, batch: Batch, own_share: float) -> torch.Tensor:
        """Return the summed loss of a batch, a scalar.

        Args:
            images: what the network saw, mixed or not; for a loss that another network has a say in.
            logits: float32 [B, classes].
            batch: the images as they were, and their labels.
            own_share: how much of its own label an image has; the rest is its neighbour's.
        """
        loss = self.run.task.loss(logits, batch.labels, batch.real)
        if own_share == 1.0:
            return loss
        return own_share * loss + (1 - own_share) * self.run.task.loss(logits, batch.labels.roll(1, 0), batch.real)

    def update(self) -> torch.Tensor:
        """Move the weights by the gradient that was gathered; returns its norm before clipping, a scalar."""
        lr = self.run.schedule.lr(self.step, self.drops)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.unscale_(self.optimizer)
        learning = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        # 1.7 ms for resnet18 on two cores, whose step takes 1,200 at 32 px; it tells which step went wrong.
        norm = nn.utils.get_total_norm([parameter.grad for parameter in learning if parameter.grad is not None])
        if self.run.config.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(learning, self.run.config.clip_grad, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            self.average.update(self.model, self.step)
        self.is_between_steps = True
        return norm

    def end(self) -> None:
        """End an epoch: BatchNorm's statistics, which are of each process's own batches, become the first one's."""
        averaged = self.average.model.buffers() if self.average else ()
        self.run.world.broadcast([*self.model.buffers(), *averaged])

    def state_dict(self) -> dict[str, Any]:
        """Return what else is needed to go on learning, beside the weights of `validated`."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "raw": self.model.network.state_dict() if self.average else None,  # the weights behind the average
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; the validated model's weights are loaded already."""
        restore_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"]:  # empty when the run began without fp16
            self.scaler.load_state_dict(state["scaler"])
        if state["raw"]:
            load_state(self.model.network, state["raw"])
        self.step = state["step"]

    def _exchange(self, wanted: bool) -> contextlib.AbstractContextManager[None]:
        """Let DDP exchange gradients only in the last batch of an optimizer step."""
        if isinstance(self._forward, DistributedDataParallel) and not wanted:
            return self._forward.no_sync()
        return contextlib.nullcontext()


def is_frozen(config: TrainConfig, epoch: int) -> bool:
    """Tell whether the backbone is frozen in this epoch."""
    return config.freeze_epochs == "all" or epoch <= config.freeze_epochs


def _seed_dropout(device: torch.device, seed: int) -> None:
    # torch.manual_seed would do, at 264 us a step; a device's own generator takes 3 us.
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
