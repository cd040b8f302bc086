"""What we compare with, as a tutorial would write it. `python rivals.py NAME ARGUMENT...` runs one as a process.

timm and DALI are imported when used, because they need not be there. Of imgcls it takes the same small networks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

from imgcls.models.own import bn_cnn, small_cnn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TO_NETWORK = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
WORKERS = 2
CROPS = (0.25, 1.0)  # of the picture's area; imgcls's own, where the rivals' defaults begin at 0.08


def stock_loader(
    folder: Path, size: int, batch_size: int, workers: int = WORKERS, stay: bool = True
) -> DataLoader[Any]:
    """Return shuffled batches with random crop and flip; most tutorials let no worker stay for the next epoch."""
    crop = transforms.RandomCrop(size, padding=4) if size <= 40 else transforms.RandomResizedCrop(size, CROPS)
    dataset = ImageFolder(str(folder), transforms.Compose([crop, transforms.RandomHorizontalFlip(), TO_NETWORK]))
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=workers, persistent_workers=stay)


def timm_loader(folder: Path, size: int, batch_size: int, is_training: bool = True) -> Any:
    """Return the batches of timm, without the colour jitter that it adds by default."""
    data = import_module("timm.data")
    dataset = data.create_dataset("", root=str(folder))
    options: dict[str, Any] = {"color_jitter": None, "scale": CROPS, "num_workers": WORKERS, "use_prefetcher": False}
    return data.create_loader(dataset, (3, size, size), batch_size, is_training=is_training, **options)


def dali_epochs(folder: Path, size: int, batch_size: int) -> Callable[[], Iterator[Any]]:
    """Return a function that gives the batches of an epoch of DALI's CPU pipeline."""
    dali: Any = import_module("nvidia.dali")
    fn: Any = import_module("nvidia.dali.fn")
    mean, std = ([255 * value for value in values] for values in (MEAN, STD))

    def graph() -> Any:
        files, labels = fn.readers.file(file_root=str(folder), random_shuffle=True)
        crops = fn.decoders.image_random_crop(files, device="cpu", random_area=list(CROPS))
        images = fn.resize(crops, size=(size, size))
        mirror = fn.random.coin_flip()
        return fn.crop_mirror_normalize(images, mean=mean, std=std, mirror=mirror, output_layout="CHW"), labels

    pipeline = dali.pipeline_def(graph)(batch_size=batch_size, num_threads=WORKERS, device_id=None)
    pipeline.build()
    count = len(ImageFolder(str(folder)))
    return lambda: (pipeline.run() for _ in range(-(-count // batch_size)))


def train_epoch(
    model: nn.Module, batches: Iterable[Any], optimizer: torch.optim.Optimizer, device: str = "cpu"
) -> float:
    """Train, on CUDA in mixed precision, and return the mean loss, which is fetched in every step."""
    model.train()
    losses: list[float] = []
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def recipe_rate(folder: Path, batches: int = 40) -> tuple[float]:
    """Return the images per second of the tutorials' CIFAR-10 recipe: bn-cnn, Adam, PIL loader."""
    model, loader = bn_cnn(10, 32), stock_loader(folder, 32, 64, stay=False)
    if len(loader) <= batches:
        raise ValueError(f"{folder}: has no {batches} whole batches")
    began = time.perf_counter()
    train_epoch(model, islice(loader, batches), torch.optim.Adam(model.parameters(), lr=1e-3))
    return (64 * batches / (time.perf_counter() - began),)


def tutorial_training(data: str, epochs: str) -> None:
    """Train small-cnn with Adam."""
    began = time.perf_counter()
    train = stock_loader(Path(data, "train"), 32, 64, stay=False)
    val = DataLoader(ImageFolder(f"{data}/val", TO_NETWORK), 64, num_workers=WORKERS)
    model = small_cnn(10, 32)
    _run(model, train, val, torch.optim.Adam(model.parameters(), lr=1e-3), int(epochs))
    print(time.perf_counter() - began)


def timm_training(data: str, epochs: str) -> None:
    """Train resnet18 at 32 px with timm's model, loaders and optimizer."""
    began = time.perf_counter()
    train, val = (timm_loader(Path(data, split), 32, 64, split == "train") for split in ("train", "val"))
    model = import_module("timm").create_model("resnet18", num_classes=10)
    _run(model, train, val, import_module("timm.optim").create_optimizer_v2(model, opt="adamw", lr=1e-3), int(epochs))
    print(time.perf_counter() - began)


def _run(model: nn.Module, train: Any, val: Any, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    for epoch in range(epochs):
        loss = train_epoch(model, train, optimizer)
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in val:
                right += int((model(images).argmax(1) == labels).sum())
                total += len(labels)
        print(f"epoch {epoch + 1}: loss {loss:.4f}, accuracy {right / total:.4f}")
    torch.save(model.state_dict(), "model.pth")


def loop_over_images(folder: str, weights: str) -> None:
    """Predict with resnet18, one image after the other; prints the seconds from loaded to done."""
    classes = sorted(path.name for path in Path(folder).iterdir())
    model = models.resnet18(num_classes=len(classes))
    model.load_state_dict(torch.load(weights))
    model.eval()
    transform = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), TO_NETWORK])
    began = time.perf_counter()
    for path in sorted(Path(folder).rglob("*.jpg")):
        with torch.no_grad():
            probabilities = model(transform(Image.open(path).convert("RGB"))[None])[0].softmax(0)
        best = int(probabilities.argmax())
        print(f"{path}\t{classes[best]}\t{probabilities[best]:.4f}")
    print(time.perf_counter() - began)


if __name__ == "__main__":
    {"tutorial": tutorial_training, "timm": timm_training, "loop": loop_over_images}[sys.argv[1]](*sys.argv[2:])
