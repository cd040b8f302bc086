"""What a run says before it begins: the header, and advice nobody asked for."""

from __future__ import annotations

import torch

from imgcls.engine.decide.decided import choices
from imgcls.engine.decide.learning import images_per_step
from imgcls.engine.learn.learner import is_frozen
from imgcls.engine.run.run import Run
from imgcls.errors import counted
from imgcls.events import Said, Started
from imgcls.models.classifier import Classifier
from imgcls.models.surgery import count_parameters, head


def started(run: Run, model: Classifier, first_epoch: int, steps_done: int, out: str | None) -> Started:
    """Return the header of a run that begins, or goes on after some steps of an epoch."""
    splits, network = run.inputs.splits, model.network
    parameters = count_parameters(network)
    device, *others = choices(run.decided)
    unasked = run.card.pretrained.missing  # of which `advice` speaks
    return Started(
        device=device,
        card=run.card,
        parameters=parameters,
        trainable=count_parameters(head(network)[1]) if is_frozen(run.config, first_epoch) else parameters,
        images={"train": len(splits.train.images)} | ({"val": len(splits.val.images)} if splits.val else {}),
        validation=splits.validation,
        source=splits.source,
        recipe=recipe(run),
        choices=tuple(choice for choice in others if not (unasked and choice is run.decided.inputs.weights)),
        out=out,
        first_epoch=first_epoch,
        steps_done=steps_done,
        epochs=run.config.epochs,
    )


def recipe(run: Run) -> str:
    """Return the recipe in one line."""
    config = run.config
    asked = config.batch_size * config.accumulate * run.world.size
    images = images_per_step(config, run.inputs.splits, run.world)
    batch = f"batch {config.batch_size} x {config.accumulate} x {run.world.size} = {asked}"
    batch += f", but there are {images} images: one step per epoch" if asked > images else ""
    extras = {
        "label smoothing": config.label_smoothing,
        "class weights": config.class_weights if config.class_weights != "none" else None,
        "mixup": config.mixup,
        "cutmix": config.cutmix,
        "dropout": config.dropout,
        "clip": config.clip_grad,
        "EMA": "on" if config.ema else None,
        "frozen epochs": config.freeze_epochs,
    }
    parts = [
        counted(config.epochs, "epoch"),
        f"{config.optimizer} lr {run.decided.lr.shown} {config.schedule}, "
        f"{counted(run.schedule.warmup, 'warm-up step')}",
        f"weight decay {config.weight_decay:g}",
        batch,
        f"augment {run.inputs.augmentation}",
        *(f"{name} {value}" for name, value in extras.items() if value),
    ]
    return ", ".join(parts)


def advice(run: Run) -> list[Said]:
    """Return what the user should hear without asking."""
    start, config = run.inputs.start, run.config
    said = [Said(note) for note in start.notes]
    if start.pretrained.missing:
        said.append(Said(f"TRAINING FROM SCRATCH, without pretrained weights: {start.pretrained.reason}", warning=True))
    if is_frozen(config, 1) and start.pretrained.used is None:
        said.append(Said("--freeze-epochs without pretrained weights: the frozen backbone is random", warning=True))
    if run.device.type == "cuda" and run.world.size == 1 and (gpus := torch.cuda.device_count()) > 1:
        line = f"torchrun --standalone --nproc-per-node {gpus} -m imgcls train …"
        said.append(Said(f"using one of {gpus} GPUs; to use all: {line}"))
    if run.inputs.splits.val is None:
        said.append(Said("no validation images: the last epoch counts as the best", warning=True))
    return said
