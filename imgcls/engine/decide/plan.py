"""A training run put together: what stays fixed (`Plan`), what changes (`State`), and how both are built or restored.

Knows neither the loop nor files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import imgcls
from imgcls.checkpoint import Checkpoint
from imgcls.config import SMALL_IMAGE, TrainConfig, to_dict
from imgcls.data import disk_cache
from imgcls.data.batch import Data, Loader
from imgcls.data.cache import choose_cache
from imgcls.data.pictures import unreadable
from imgcls.device import choose_amp, choose_device, full_float32, make_deterministic
from imgcls.distributed import World
from imgcls.engine.assess.origin import seen_images
from imgcls.engine.decide.data import Prepared, training_batches, validation_batches
from imgcls.engine.learn.optimizers import Ema, build_optimizer, choose_lr, choose_warmup, restore_optimizer
from imgcls.engine.run.folder import provenance
from imgcls.errors import CheckpointError, DataError, ImageError, UsageError
from imgcls.files import check_outside
from imgcls.machine import free_memory
from imgcls.models import pretrained
from imgcls.models.build import Classifier, build_network, has_batch_norm, has_small_stem, last_layers, load_state
from imgcls.schema import Choice, ModelCard


@dataclass
class State:
    """What changes while training: everything here goes into last.pt."""

    model: Classifier
    forward: nn.Module  # the model as it is trained: compiled with `--compile`
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    processes: int = 1
    step: int = 0  # optimizer steps done
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def validated(self) -> Classifier:
        """The model that is validated and kept: the average with `--ema`."""
        return self.ema.model if self.ema else self.model

    def training_dict(self) -> dict[str, Any]:
        """Return what last.pt holds beside the model that was validated."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "raw": self.model.network.state_dict() if self.ema else None,  # the weights behind the average
            "step": self.step,
            "history": self.history,
            "processes": self.processes,
        }

    def restore(self, training: dict[str, Any]) -> None:
        """Take over what `training_dict` gave; the validated model's weights are loaded already."""
        restore_optimizer(self.optimizer, training["optimizer"])
        if training["scaler"]:  # empty when the run began without fp16
            self.scaler.load_state_dict(training["scaler"])
        if training["raw"]:
            load_state(self.model.network, training["raw"])
        self.step, self.history = training["step"], training["history"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What stays fixed while training."""

    config: TrainConfig
    world: World
    device: torch.device
    amp: torch.dtype | None
    effective_batch: int  # images per optimizer step over all processes, at most those of an epoch
    peak_lr: float
    warmup_steps: int
    class_weights: torch.Tensor  # float32 [classes], on the device
    data: Data
    prepared: Prepared
    card: ModelCard
    choices: tuple[Choice, ...]  # the device first

    @property
    def batches(self) -> Loader:
        """Those of training."""
        return self.data.train

    @property
    def val(self) -> Loader | None:
        """The batches of validation."""
        return self.data.val

    def part(self, model: nn.Module, network: nn.Module) -> nn.Module:
        """Return what the batches go through: the model, or its last layers alone when they are features."""
        return last_layers(network) if self.data.features else model

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last one may be of fewer batches."""
        return -(-len(self.batches) // self.config.accumulate)


def build(
    config: TrainConfig, prepared: Prepared, world: World, last: Checkpoint | None
) -> tuple[State, Plan, str | None]:
    """Build the network, its optimizer and the batches, or restore them from `last`.

    Returns:
        State, plan, and a sentence on the weights that training starts from, if any.

    Raises:
        UsageError: settings that the network or device refuses.
        DataError: fewer images than the network's BatchNorm needs.
        CheckpointError: weights that do not fit.
    """
    device, device_choice = choose_device(config.device, world.local_rank)
    amp, precision = choose_amp(config.amp, device)
    _check_validated(config, prepared)
    full_float32()
    if config.deterministic:
        make_deterministic()
    torch.manual_seed(config.seed)
    classes, start, preprocess = prepared.splits.classes, prepared.start, prepared.preprocess
    stem = _choose_stem(config, preprocess.size, start, last)
    options: dict[str, Any] = {"stem": stem.value, "dropout": config.dropout}
    network = build_network(config.arch, len(classes), preprocess.size, **options)
    said = None
    if start.state is not None:
        try:
            head = pretrained.apply(start, network, classes, preprocess)
        except CheckpointError as error:
            raise CheckpointError(f"{start.pretrained.used}: {error}") from error
        said = f"starting from {start.pretrained.used}: {head}"
        prepared = replace(prepared, start=replace(start, state=None))  # not kept in memory for the whole run
    if last is not None:
        load_state(network, last.model)
    if config.sync_bn:
        if world.size == 1 or device.type != "cuda":
            raise UsageError("--sync-bn is for several GPUs: start it under torchrun, or drop it")
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    model = Classifier(network, preprocess).to(device)
    if config.channels_last if config.channels_last is not None else device.type != "mps":
        model = model.in_channels_last()
    smallest = _smallest_batch(config, network, len(prepared.splits.train.images), world)
    batches = training_batches(prepared, config, world, smallest=smallest, pin_memory=device.type == "cuda")
    asked_batch = config.batch_size * config.accumulate * world.size
    effective_batch = min(asked_batch, len(prepared.splits.train.images))  # no step reaches into the next epoch
    lr = choose_lr(config, network, start.pretrained.used is not None, effective_batch)
    warmup = choose_warmup(config, -(-len(batches) // config.accumulate))
    counts = prepared.splits.train.counts()
    weights = balanced_weights(counts) if config.class_weights == "balanced" else np.ones(len(classes), np.float32)
    state = State(
        model=model,
        forward=torch.compile(model, dynamic=False) if config.compile else model,  # type: ignore[arg-type] # the same, wrapped
        optimizer=build_optimizer(config, network, float(lr.value)),
        scaler=torch.amp.GradScaler(device.type, enabled=amp is torch.float16),
        ema=Ema(model) if config.ema else None,
        processes=world.size,
    )
    if last is not None:
        state.restore(last.training)
    val = validation_batches(prepared, config, world, pin_memory=device.type == "cuda")
    parts = [split.pictures for split in (batches, val) if split is not None]
    if config.cache == "disk":
        check_outside(disk_cache.folder(), config.data, "$XDG_CACHE_HOME")
    cache = Choice("cache", "off", "a dry run sees two batches")
    if not config.dry_run:
        try:
            # One for all processes: they wait for each other where one writes to the disk.
            cache = world.share(choose_cache(config.cache, parts, free_memory() // world.local_size, config.epochs))
        except ImageError as error:
            raise unreadable(str(error)) from error
    choices = (device_choice, precision, *prepared.choices, cache, stem, lr, warmup)
    earlier, resolved = last.card.run if last else {}, {choice.name: choice.value for choice in choices}
    card = ModelCard(
        arch=config.arch,
        arch_options=options,
        classes=classes,
        preprocess=preprocess,
        pretrained=start.pretrained,
        config=to_dict(config),
        run=provenance(earlier)
        | {"resolved": earlier.get("resolved", {}) | resolved, "images": seen_images(prepared.splits)},
        data_fingerprint=prepared.splits.fingerprint,
        imgcls_version=imgcls.__version__,
    )
    plan = Plan(
        config=config,
        world=world,
        device=device,
        amp=amp,
        effective_batch=effective_batch,
        peak_lr=float(lr.value),
        warmup_steps=int(warmup.value),
        class_weights=torch.from_numpy(weights).to(device),
        data=Data(batches, val),
        prepared=prepared,
        card=card,
        choices=choices,
    )
    return state, plan, said


def _check_validated(config: TrainConfig, prepared: Prepared) -> None:
    """Refuse settings that need validation images where there are none."""
    asked = {
        "--early-stop": config.early_stop is not None,
        "--schedule plateau": config.schedule == "plateau",
        f"--monitor {config.monitor}": config.monitor != "val-acc",
    }
    for flag, is_asked in asked.items():
        if is_asked and prepared.splits.val is None:
            raise UsageError(f"{flag} needs validation images, and there are none: drop it, or raise --val-split")


def _smallest_batch(config: TrainConfig, network: nn.Module, images: int, world: World) -> int:
    """Return how many images a batch of all processes must have: two in each whose BatchNorm takes statistics of them.

    Torch refuses one image where it has one pixel left; elsewhere its statistics would be those of a single image.

    Raises:
        UsageError: the batches are of one image.
        DataError: the images are too few.
    """
    is_frozen = config.freeze_epochs == "all" or config.freeze_epochs >= config.epochs
    if not has_batch_norm(last_layers(network) if is_frozen else network):
        return 2
    if config.sync_bn:  # statistics of all processes, but not of fillers
        return max(2, world.size)
    needs = f"{config.arch} has BatchNorm, which needs two images per batch and process"
    if config.batch_size == 1:
        raise UsageError(f"--batch-size 1: {needs}; type --batch-size 2, or --arch convnext_tiny, which has none")
    if images < 2 * world.size:
        given = f"{images} training images on {world.size} processes"  # a single one is refused with the data
        raise DataError(f"{given}: {needs}; add images, or start fewer processes")
    return 2 * world.size


def balanced_weights(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return inverse class frequencies, float32 [classes], of mean 1 over the images (as scikit-learn's "balanced")."""
    return np.asarray(counts.sum() / (len(counts) * np.maximum(counts, 1)), dtype=np.float32)


def _choose_stem(config: TrainConfig, size: int, start: pretrained.Start, last: Checkpoint | None) -> Choice:
    if last is not None:
        return Choice("stem", last.card.arch_options["stem"], "that of the run")
    if config.stem != "auto":
        return Choice("stem", config.stem, "as asked")
    if start.card is not None:
        return Choice("stem", start.card.arch_options["stem"], "that of --weights")
    if start.stem == "small":
        return Choice("stem", "small", "the first convolution of --weights is 3x3")
    if start.pretrained.used is not None:
        return Choice("stem", "standard", "that of the weights")
    if not has_small_stem(config.arch):
        return Choice("stem", "standard", "the architecture's own")
    small = size <= SMALL_IMAGE
    return Choice("stem", "small" if small else "standard", f"input {'up to' if small else 'above'} {SMALL_IMAGE} px")
