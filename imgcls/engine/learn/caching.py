"""What every epoch would do again is done once: images are decoded, and features of a frozen backbone computed.

Gives other data that change no result, only when it is there. Knows neither the loop nor files of a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from imgcls.data import disk_cache
from imgcls.data.batch import Data, to_device
from imgcls.data.cache import MEMORY_FRACTION, Store, in_memory
from imgcls.data.files import FileLoader
from imgcls.data.memory import FeatureLoader, FrameLoader, from_store
from imgcls.data.order import Order
from imgcls.data.pictures import Pictures, unreadable
from imgcls.device import free_device_memory
from imgcls.distributed import World
from imgcls.engine.run.run import Run
from imgcls.errors import ImageError, counted
from imgcls.events import Pace, Report, Said, Stepped
from imgcls.machine import available_cpus, free_memory
from imgcls.models.classifier import Classifier
from imgcls.models.surgery import last_layers

GPU_FRACTION = 0.2  # of a GPU's free memory, that decoded images may take


def cached(run: Run, model: Classifier, data: Data, report: Report) -> Data:
    """Return the data with everything done once that every epoch would do again.

    Args:
        run: where decoded images are kept, and whether the backbone is frozen.
        model: whose features are kept when its backbone is frozen; is left in eval mode then.
        data: from files.
        report: receives progress and what was done.

    Raises:
        DataError: an image cannot be read; named.
        WriteError: with `--cache disk`, the disk refuses the file.
    """
    config, where = run.config, run.decided.cache.value
    if where != "off":
        try:
            data = with_images(data, where, config.cache is not None, run.world, run.device, report)
        except ImageError as error:
            images = [loader.pictures.images for loader in data.loaders if isinstance(loader, FileLoader)]
            raise unreadable(str(error), *images) from error
    if config.freeze_epochs == "all" and not config.mixes_labels and _is_same_in_every_epoch(data):
        data = with_features(data, model, run.world, run.device, report)
    return data


def _is_same_in_every_epoch(data: Data) -> bool:
    augmentation = _image_loaders(data)[0].augmentation
    return augmentation is None or augmentation.is_identity


def _image_loaders(data: Data) -> list[FileLoader | FrameLoader]:
    loaders = [loader for loader in data.loaders if isinstance(loader, FileLoader | FrameLoader)]
    assert len(loaders) == len(data.loaders), "features are computed once"
    return loaders


def with_images(data: Data, where: str, asked: bool, world: World, device: torch.device, report: Report) -> Data:
    """Return the data with its images decoded; the same data, with a word on it, when memory is too short.

    Args:
        data: from files.
        where: "memory" or "disk".
        asked: whether the user asked for it.
        world: the training processes.
        device: that the batches go to; frames may be kept there.
        report: receives progress and what was done.

    Raises:
        ImageError: naming the first that cannot be read.
        WriteError: the disk refuses the file.
    """
    began, loaders = time.monotonic(), list[FileLoader | FrameLoader]()
    files = [loader for loader in data.loaders if isinstance(loader, FileLoader)]
    assert len(files) == len(data.loaders), "images are decoded once"
    room = int(MEMORY_FRACTION * free_memory()) // world.local_size
    for loader in files:
        progress = Progress("decoding", loader.order, report)
        store = (
            _on_disk(loader.pictures, [other.pictures for other in files], world, progress)
            if where == "disk"
            else _in_memory(loader.pictures, room - sum(done.nbytes for done in loaders), world, progress)
        )
        if store is None:
            problem = "the images do not fit half of the free memory: they are decoded anew in each epoch"
            report(Said(problem, warning=asked))
            return data
        loaders.append(from_store(loader, store, _device_for(store.pixels.nbytes, device)))
    images = counted(sum(loader.order.count for loader in loaders), "image")
    size = sum(loader.nbytes for loader in loaders) / 2**20
    kept_in = "memory" if where == "memory" else str(disk_cache.folder())
    report(Said(f"cache: {images}, {size:.0f} MiB in {kept_in}, {time.monotonic() - began:.1f} s"))
    return Data.of(loaders)


def _in_memory(pictures: Pictures, room: int, world: World, progress: Callable[[int], None]) -> Store | None:
    return in_memory(pictures, max(1, available_cpus() // world.local_size), room, progress)


def _on_disk(pictures: Pictures, beside: list[Pictures], world: World, progress: Callable[[int], None]) -> Store:
    with world.main_first():
        # With the threads of all processes, because the others wait.
        return disk_cache.find(pictures) or disk_cache.write(pictures, available_cpus(), progress, beside)


def _device_for(size: int, device: torch.device) -> torch.device:
    """Return where to keep that many bytes: on a GPU only when most of its memory is left for training."""
    fits = device.type != "cuda" or size <= GPU_FRACTION * free_device_memory(device)
    return device if fits else torch.device("cpu")


def with_features(data: Data, model: Classifier, world: World, device: torch.device, report: Report) -> Data:
    """Return what the last layers see of every image in place of the images; the same data when that cannot be.

    Args:
        data: of images, the same in every epoch.
        model: is left in eval mode.
        world: the training processes; each computes the features of all images.
        device: of the model, and of the features.
        report: receives progress and what was done.
    """
    began, loaders = time.monotonic(), list[FeatureLoader]()
    for loader in _image_loaders(data):
        features = _features(model, loader, world, device, report)
        if features is None:
            return data
        loaders.append(FeatureLoader(features, loader.labels, loader.order, loader.rank))
    seconds = time.monotonic() - began
    report(Said(f"features of the frozen backbone computed once, {seconds:.1f} s: each epoch trains the head on them"))
    return Data.of(loaders, features=True)


@torch.no_grad()
def _features(
    model: Classifier, loader: FileLoader | FrameLoader, world: World, device: torch.device, report: Report
) -> torch.Tensor | None:
    """Return the inputs of the last layers for all images as they are listed, float32 [n, …].

    None when they do not fit, or when the last layers do not make the network's logits of them.
    """
    model.eval()
    listed = replace(loader, order=Order(loader.order.count, loader.order.batch_size), rank=0)
    last, seen, parts = last_layers(model.network), list[torch.Tensor](), list[torch.Tensor]()
    hook = last[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]), prepend=True)
    progress, done = Progress("features", listed.order, report), 0
    room = MEMORY_FRACTION * min(free_memory() // world.local_size, free_device_memory(device))
    try:
        for batch in to_device(listed.epoch(0), device):
            logits = model(batch.images)
            features = seen.pop()
            if not parts:
                again = last(features)
                seen.clear()
                fits = 2 * features[0].nbytes * listed.order.count <= room  # twice when they are put together
                same = again.shape == logits.shape and torch.allclose(again, logits, 1e-3, 1e-4)
                if not world.broadcast_object(fits and same):
                    return None
            parts.append(features.clone())  # a vision transformer's are a view of 200 times their size
            progress(done := done + len(features))
    finally:
        hook.remove()
    return torch.cat(parts)


class Progress:
    """Reports how far a pass over all images is, a few times a second."""

    def __init__(self, phase: str, order: Order, report: Report) -> None:
        self.phase, self.order, self.report, self.pace = phase, order, report, Pace()

    def __call__(self, done: int) -> None:
        """Say how many images are done, if it is time."""
        if self.pace.due():
            size = self.order.batch_size
            batches = -(-self.order.count // size)
            self.report(Stepped(0, self.phase, done // size, batches, None, self.pace.rate(done)))
