"""What a run says before it begins: the header, and advice nobody asked for."""

from __future__ import annotations

import torch

from imgcls.engine.decide.plan import Plan, State
from imgcls.engine.learn.epoch import is_frozen
from imgcls.errors import counted
from imgcls.events import Said, Started
from imgcls.models.build import count_parameters, head


def started(state: State, plan: Plan, out: str | None) -> Started:
    """Return the header of a run."""
    splits, network, config = plan.prepared.splits, state.model.network, plan.config
    first_epoch, unasked = len(state.history) + 1, plan.card.pretrained.missing  # of which `advice` speaks
    parameters = count_parameters(network)
    return Started(
        device=plan.choices[0],
        card=plan.card,
        parameters=parameters,
        trainable=count_parameters(head(network)[1]) if is_frozen(config, first_epoch) else parameters,
        images={"train": len(splits.train.images)} | ({"val": len(splits.val.images)} if splits.val else {}),
        validation=splits.validation,
        source=splits.source,
        recipe=recipe(plan),
        choices=tuple(choice for choice in plan.choices[1:] if not (unasked and choice.name == "weights")),
        out=out,
        first_epoch=first_epoch,
        epochs=config.epochs,
    )


def recipe(plan: Plan) -> str:
    """Return the recipe in one line."""
    config = plan.config
    asked, images = config.batch_size * config.accumulate * plan.world.size, plan.effective_batch
    batch = f"batch {config.batch_size} x {config.accumulate} x {plan.world.size} = {asked}"
    batch += f", but there are {images} images: one step per epoch" if asked > images else ""
    lr = next(choice.shown for choice in plan.choices if choice.name == "lr")
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
        f"{config.optimizer} lr {lr} {config.schedule}, {counted(plan.warmup_steps, 'warm-up step')}",
        f"weight decay {config.weight_decay:g}",
        batch,
        f"augment {plan.prepared.augmentation}",
        *(f"{name} {value}" for name, value in extras.items() if value),
    ]
    return ", ".join(parts)


def advice(plan: Plan) -> list[Said]:
    """Return what the user should hear without asking."""
    start = plan.prepared.start
    said = [Said(note) for note in start.notes]
    if start.pretrained.missing:
        said.append(Said(f"TRAINING FROM SCRATCH, without pretrained weights: {start.pretrained.reason}", warning=True))
    if is_frozen(plan.config, 1) and start.pretrained.used is None:
        said.append(Said("--freeze-epochs without pretrained weights: the frozen backbone is random", warning=True))
    if plan.device.type == "cuda" and plan.world.size == 1 and (gpus := torch.cuda.device_count()) > 1:
        line = f"torchrun --standalone --nproc-per-node {gpus} -m imgcls train …"
        said.append(Said(f"using one of {gpus} GPUs; to use all: {line}"))
    if plan.val is None:
        said.append(Said("no validation images: the last epoch counts as the best", warning=True))
    return said
