"""A run: everything about a training that stays fixed from its first step to its last."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from imgcls.config import TrainConfig
from imgcls.distributed import World
from imgcls.engine.decide.decided import Decided
from imgcls.engine.decide.inputs import Inputs
from imgcls.engine.learn.schedules import Schedule
from imgcls.engine.learn.task import Task
from imgcls.schema import ModelCard


@dataclass(frozen=True, kw_only=True)
class Run:
    """What stays fixed.

    Attributes:
        config: as asked for.
        world: this process among all.
        device: where the network is.
        amp: autocast type; None: float32.
        inputs: the images, and how they become the network's input.
        decided: every automatic choice, with its reason.
        task: how labels weigh, and the loss.
        schedule: the learning rate of each step.
        card: describes the model in its checkpoints; metrics and epoch are added to it.
    """

    config: TrainConfig
    world: World
    device: torch.device
    amp: torch.dtype | None
    inputs: Inputs
    decided: Decided
    task: Task
    schedule: Schedule
    card: ModelCard
