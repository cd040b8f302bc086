"""A run put together: its decisions, its network and its data, from the settings or from where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

import imgcls
from imgcls.checkpoint import Checkpoint
from imgcls.config import TrainConfig
from imgcls.data import disk_cache
from imgcls.data.batch import Data
from imgcls.data.cache import choose_cache
from imgcls.data.files import FileLoader
from imgcls.data.pictures import unreadable
from imgcls.device import choose_amp, choose_device, fit_threads, full_float32, make_deterministic
from imgcls.distributed import World
from imgcls.engine.assess.origin import seen_images
from imgcls.engine.decide.decided import Decided, choices
from imgcls.engine.decide.inputs import Inputs, training_batches, validation_batches
from imgcls.engine.decide.learning import choose_lr, choose_warmup, images_per_step
from imgcls.engine.decide.network import build_model, choose_stem, smallest_batch
from imgcls.engine.learn.schedules import Schedule
from imgcls.engine.learn.task import Task, balanced_weights
from imgcls.engine.run.resume import versions_of_draws
from imgcls.engine.run.run import Run
from imgcls.errors import ImageError, UsageError
from imgcls.machine import free_memory
from imgcls.models.classifier import Classifier
from imgcls.paths import check_outside
from imgcls.provenance import provenance
from imgcls.schema import Choice, ModelCard
from imgcls.settings import to_dict


@dataclass(frozen=True)
class Compute:
    """On what a run computes, decided before anything is loaded.

    Attributes:
        world: this process among all.
        device: where the network is.
        amp: autocast type; None: float32.
        decided: the device and the precision, as they are printed.
    """

    world: World
    device: torch.device
    amp: torch.dtype | None
    decided: tuple[Choice[str], Choice[str]]


def choose_compute(config: TrainConfig, world: World) -> Compute:
    """Choose device and precision.

    Raises:
        UsageError: what was asked for is not here.
    """
    device, device_choice = choose_device(config.device, world.local_rank)
    amp, precision = choose_amp(config.amp, device)
    return Compute(world, device, amp, (device_choice, precision))


def build(
    config: TrainConfig, compute: Compute, inputs: Inputs, last: Checkpoint | None = None
) -> tuple[Run, Classifier, Data, str | None]:
    """Decide what is left to decide and build the network and the loaders.

    Args:
        config: the settings.
        compute: device, precision and processes.
        inputs: what is trained on.
        last: of the run that is resumed.

    Returns:
        The run, the model, the data, and a sentence on the weights that training starts from, if any.

    Raises:
        UsageError: settings that the network or device refuses.
        DataError: fewer images than the network's BatchNorm needs.
        CheckpointError: weights that do not fit.
    """
    world, device, splits = compute.world, compute.device, inputs.splits
    _check_validated(config, inputs)
    if config.sync_bn and (world.size == 1 or device.type != "cuda"):
        raise UsageError("--sync-bn is for several GPUs: start it under torchrun, or drop it")
    full_float32()
    if config.deterministic:
        make_deterministic()
    stem = choose_stem(config, inputs, last)
    options: dict[str, Any] = {"stem": stem.value, "dropout": config.dropout}
    model, said = build_model(config, inputs, options, device, last)
    inputs = replace(inputs, start=replace(inputs.start, state=None))  # not kept in memory for the whole run
    train, val = _loaders(config, compute, inputs, model)
    steps_per_epoch = -(-len(train) // config.accumulate)
    fine_tuning = inputs.start.pretrained.used is not None
    lr = choose_lr(config, model.network, fine_tuning, images_per_step(config, splits, world))
    warmup = choose_warmup(config, steps_per_epoch)
    decided = Decided(
        device=compute.decided[0],
        threads=fit_threads(),
        precision=compute.decided[1],
        inputs=inputs.decided,
        cache=_choose_cache(config, [train] if val is None else [train, val], world),
        stem=stem,
        lr=lr,
        warmup_steps=warmup,
    )
    balanced = config.class_weights == "balanced"
    weights = balanced_weights(splits.train.counts()) if balanced else np.ones(len(splits.classes), np.float32)
    run = Run(
        config=config,
        world=world,
        device=device,
        amp=compute.amp,
        inputs=inputs,
        decided=decided,
        task=Task(torch.from_numpy(weights).to(device), config.label_smoothing),
        schedule=Schedule(config.schedule, lr.value, config.epochs * steps_per_epoch, warmup.value),
        card=_card(config, options, inputs, decided, last),
    )
    return run, model, Data(train, val), said


def _loaders(
    config: TrainConfig, compute: Compute, inputs: Inputs, model: Classifier
) -> tuple[FileLoader, FileLoader | None]:
    """Return those of the training and of the validation images, if any."""
    world, pin_memory = compute.world, compute.device.type == "cuda"
    smallest = smallest_batch(config, model.network, len(inputs.splits.train.images), world)
    train = training_batches(inputs, config, world, smallest=smallest, pin_memory=pin_memory)
    val = validation_batches(inputs, config, world, pin_memory=pin_memory)
    return train, val


def _choose_cache(config: TrainConfig, loaders: Sequence[FileLoader], world: World) -> Choice[str]:
    """Decide where decoded images are kept: one choice for all processes, which wait where one writes to the disk."""
    if config.cache == "disk":
        check_outside(disk_cache.folder(), config.data, "$XDG_CACHE_HOME")
    if config.dry_run:
        return Choice("cache", "off", "a dry run sees two batches")
    parts = [loader.pictures for loader in loaders]
    try:
        choice = choose_cache(config.cache, parts, free_memory() // world.local_size, config.epochs)
    except ImageError as error:
        raise unreadable(str(error), *(part.images for part in parts)) from error
    agreed: Choice[str] = world.broadcast_object(choice)
    return agreed


def _card(
    config: TrainConfig, options: dict[str, Any], inputs: Inputs, decided: Decided, last: Checkpoint | None
) -> ModelCard:
    earlier = last.card.run if last else {}
    resolved = earlier.get("resolved", {}) | {choice.name: choice.value for choice in choices(decided)}
    return ModelCard(
        arch=config.arch,
        arch_options=options,
        classes=inputs.splits.classes,
        preprocess=inputs.preprocess,
        pretrained=inputs.start.pretrained,
        config=to_dict(config),
        run=provenance(earlier)
        | {"resolved": resolved, "images": seen_images(inputs.splits)}
        | {"draws": versions_of_draws(last.card if last else None)},
        data_fingerprint=last.card.data_fingerprint if last else inputs.splits.fingerprint,
        imgcls_version=imgcls.__version__,
    )


def _check_validated(config: TrainConfig, inputs: Inputs) -> None:
    """Refuse settings that need validation images where there are none."""
    asked = {
        "--early-stop": config.early_stop is not None,
        "--schedule plateau": config.schedule == "plateau",
        f"--monitor {config.monitor}": config.monitor != "val-acc",
    }
    for flag, is_asked in asked.items():
        if is_asked and inputs.splits.val is None:
            raise UsageError(f"{flag} needs validation images, and there are none: drop it, or raise --val-split")
