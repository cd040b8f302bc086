"""What is the same in every epoch is computed once and held: decoded images, and the features of a frozen backbone.

Changes no result, only when it is there. Knows neither the loop nor files of a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from imgcls.data import disk_cache
from imgcls.data.cache import MEMORY_FRACTION, Store, in_memory
from imgcls.data.loaders import Batches, moved
from imgcls.data.pictures import Pictures, unreadable
from imgcls.device import free_device_memory
from imgcls.engine.decide.plan import Plan, State
from imgcls.errors import ImageError, counted
from imgcls.events import REPORT_SECONDS, Report, Said, Stepped
from imgcls.machine import available_cpus, free_memory
from imgcls.models.build import last_layers

GPU_FRACTION = 0.2  # of a GPU's free memory, that held images may take


def hold(state: State, plan: Plan, report: Report) -> Plan:
    """Return the plan with its batches made from what is held.

    Raises:
        DataError: an image cannot be read; named.
        WriteError: with `--cache disk`, the disk refuses the file.
    """
    plan = _hold_images(plan, report)
    return _hold_features(state, plan, report)


def _hold_images(plan: Plan, report: Report) -> Plan:
    where = next(str(choice.value) for choice in plan.choices if choice.name == "cache")
    if where == "off":
        return plan
    began, held = time.monotonic(), list[Batches]()
    room = int(MEMORY_FRACTION * free_memory()) // plan.world.local_size
    for batches in _splits(plan):
        taken = sum(part.nbytes for part in held) if where == "memory" else 0
        store = _stored(batches.pictures, where, room - taken, plan, report)
        if store is None:
            problem = "the images do not fit half of the free memory: they are decoded anew in each epoch"
            report(Said(problem, warning=plan.config.cache is not None))
            return plan
        held.append(batches.from_store(store, _place(store.pixels.nbytes, plan.device)))
    images, size = sum(len(part.pictures) for part in held), sum(part.nbytes for part in held)
    place = "memory" if where == "memory" else str(disk_cache.folder())
    report(
        Said(f"cache: {counted(images, 'image')}, {size / 2**20:.0f} MiB in {place}, {time.monotonic() - began:.1f} s")
    )
    return _with(plan, held)


def _splits(plan: Plan) -> list[Batches]:
    return [plan.batches] + ([plan.val] if plan.val is not None else [])


def _with(plan: Plan, held: list[Batches]) -> Plan:
    return replace(plan, batches=held[0], val=held[1] if len(held) > 1 else None)


def _stored(pictures: Pictures, where: str, limit: int, plan: Plan, report: Report) -> Store | None:
    threads = max(1, available_cpus() // plan.world.local_size)
    told = _progress("decoding", len(pictures), plan, report)
    try:
        if where == "disk":
            threads = available_cpus()  # the other processes wait
            with plan.world.main_first():
                beside = [batches.pictures for batches in _splits(plan)]
                return disk_cache.find(pictures) or disk_cache.write(pictures, threads, told, beside)
        return in_memory(pictures, threads, limit, told)
    except ImageError as error:
        raise unreadable(str(error)) from error


def _progress(what: str, images: int, plan: Plan, report: Report) -> Callable[[int], None]:
    began = reported = time.monotonic()
    size = plan.config.batch_size

    def told(done: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported > REPORT_SECONDS:
            reported = now
            report(Stepped(0, what, done // size, -(-images // size), None, done / (now - began)))

    return told


def _place(size: int, device: torch.device) -> torch.device:
    """Return where to hold that many bytes: on a GPU only when most of its memory is left for training."""
    fits = device.type != "cuda" or size <= GPU_FRACTION * free_device_memory(device)
    return device if fits else torch.device("cpu")


def _hold_features(state: State, plan: Plan, report: Report) -> Plan:
    """Compute what the head sees of every image, when every epoch would compute the same."""
    config = plan.config
    random = config.mixup or config.cutmix or not plan.prepared.augmentation.is_identity
    if config.freeze_epochs != "all" or random or config.dry_run:
        return plan
    began, held = time.monotonic(), list[Batches]()
    for batches in _splits(plan):
        features = _features(state, batches.in_order(), plan, report)
        if features is None:
            return plan
        held.append(batches.from_tensor(features))
    seconds = time.monotonic() - began
    report(Said(f"features of the frozen backbone computed once, {seconds:.1f} s: each epoch trains the head on them"))
    return replace(_with(plan, held), on_features=True)


@torch.no_grad()
def _features(state: State, batches: Batches, plan: Plan, report: Report) -> torch.Tensor | None:
    """Return the inputs of the last layers for all images, float32 [n, …].

    None when they do not fit, or when the last layers do not make the network's logits of them.
    """
    model = state.model.eval()
    last, seen, parts = last_layers(model.network), list[torch.Tensor](), list[torch.Tensor]()
    hook = last[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]), prepend=True)
    told = _progress("features", len(batches.pictures), plan, report)
    room = MEMORY_FRACTION * min(free_memory() // plan.world.local_size, free_device_memory(plan.device))
    done = 0
    try:
        for batch in moved(batches.epoch(0), plan.device):
            logits = model(batch.images)
            features = seen.pop()
            if not parts:
                again = last(features)
                seen.clear()
                fits = 2 * features[0].nbytes * len(batches.pictures) <= room  # twice when they are put together
                same = again.shape == logits.shape and torch.allclose(again, logits, 1e-3, 1e-4)
                if not plan.world.share(fits and same):
                    return None
            parts.append(features.clone())  # a vision transformer's are a view of 200 times their size
            told(done := done + len(features))
    finally:
        hook.remove()
    return torch.cat(parts)
