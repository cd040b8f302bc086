"""What we compare with, as a tutorial would write it. `python rivals.py NAME ARGUMENT...` runs one as a process.

timm and DALI are imported when used, because they need not be there. Knows imgcls only for the same small networks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from imgcls.models import bn_cnn, small_cnn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISED = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
WORKERS = 2


def stock_loader(folder: Path, size: int, batch_size: int, workers: int = WORKERS) -> DataLoader[Any]:
    """Shuffled batches with random crop and flip. Its workers stay, as ours do: most tutorials start them anew."""
    crop = transforms.RandomCrop(size, padding=4) if size <= 40 else transforms.RandomResizedCrop(size)
    transform = transforms.Compose([crop, transforms.RandomHorizontalFlip(), *NORMALISED])
    dataset = datasets.ImageFolder(str(folder), transform)
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=workers, persistent_workers=True)


def timm_loader(folder: Path, size: int, batch_size: int, training: bool = True) -> Iterable[Any]:
    """timm's own loader, without the colour jitter that it adds by default."""
    data: Any = import_module("timm.data")
    dataset = data.create_dataset("", root=str(folder))
    return data.create_loader(  # type: ignore[no-any-return]
        dataset,
        input_size=(3, size, size),
        batch_size=batch_size,
        is_training=training,
        color_jitter=None,
        num_workers=WORKERS,
        use_prefetcher=False,
    )


def dali_batches(folder: Path, size: int, batch_size: int) -> Callable[[], Iterator[Any]]:
    """DALI's CPU pipeline; each call of the result gives an epoch."""
    dali: Any = import_module("nvidia.dali")
    fn: Any = import_module("nvidia.dali.fn")
    count = sum(1 for path in folder.rglob("*.jpg"))

    def graph() -> Any:
        files, labels = fn.readers.file(file_root=str(folder), random_shuffle=True)
        images = fn.decoders.image_random_crop(files, device="cpu")
        images = fn.resize(images, size=(size, size))
        mean, std = ([255 * value for value in values] for values in (MEAN, STD))
        mirror = fn.random.coin_flip()
        return fn.crop_mirror_normalize(images, mean=mean, std=std, mirror=mirror, output_layout="CHW"), labels

    pipeline = dali.pipeline_def(graph)(batch_size=batch_size, num_threads=WORKERS, device_id=None)
    pipeline.build()
    return lambda: (pipeline.run() for _ in range(-(-count // batch_size)))


def train_one_epoch(
    model: nn.Module, loader: Iterable[Any], optimizer: torch.optim.Optimizer, device: str = "cpu"
) -> float:
    """Train and return the mean loss, which is fetched in every step."""
    model.train()
    total, steps = 0.0, 0
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        total, steps = total + loss.item(), steps + 1
    return total / steps


def accuracy(model: nn.Module, loader: Iterable[Any]) -> float:
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def tutorial_training(data: str, epochs: str) -> None:
    """Train small-cnn with Adam on data/train, measuring data/val after each epoch; print the seconds."""
    began = time.perf_counter()
    plain = transforms.Compose(NORMALISED)
    augmented = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), plain])
    train = DataLoader(datasets.ImageFolder(f"{data}/train", augmented), 64, shuffle=True, num_workers=WORKERS)
    val = DataLoader(datasets.ImageFolder(f"{data}/val", plain), 64, num_workers=WORKERS)
    model = small_cnn.build(10, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(int(epochs)):
        loss = train_one_epoch(model, train, optimizer)
        print(f"epoch {epoch + 1}: loss {loss:.4f}, accuracy {accuracy(model, val):.4f}")
    torch.save(model.state_dict(), "model.pth")
    print(time.perf_counter() - began)


def timm_training(data: str, epochs: str) -> None:
    """Train resnet18 at 32 px with timm's model, loader and optimizer; print the seconds."""
    began = time.perf_counter()
    train, val = (timm_loader(Path(data, split), 32, 64, split == "train") for split in ("train", "val"))
    model: nn.Module = import_module("timm").create_model("resnet18", num_classes=10)
    optimizer = import_module("timm.optim").create_optimizer_v2(model, opt="adamw", lr=1e-3)
    for epoch in range(int(epochs)):
        loss = train_one_epoch(model, train, optimizer)
        print(f"epoch {epoch + 1}: loss {loss:.4f}, accuracy {accuracy(model, val):.4f}")
    torch.save(model.state_dict(), "model.pth")
    print(time.perf_counter() - began)


def loop_over_images(folder: str, weights: str) -> None:
    """Predict with resnet18, one image after the other; says on stderr when it is ready to begin."""
    classes = sorted(path.name for path in Path(folder).iterdir())
    model = models.resnet18(num_classes=len(classes))
    model.load_state_dict(torch.load(weights))
    model.eval()
    transform = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *NORMALISED])
    print("ready", file=sys.stderr, flush=True)
    for path in sorted(Path(folder).rglob("*.jpg")):
        with torch.no_grad():
            probabilities = model(transform(Image.open(path).convert("RGB"))[None])[0].softmax(0)
        best = int(probabilities.argmax())
        print(f"{path}\t{classes[best]}\t{probabilities[best]:.4f}")


def bn_cnn_rate(folder: Path, images: int) -> tuple[float]:
    """Return the images per second of the tutorials' CIFAR-10 recipe: bn-cnn, Adam, PIL loader."""
    model = bn_cnn.build(10, 32)
    loader = stock_loader(folder, 32, 64)
    began = time.perf_counter()
    train_one_epoch(model, loader, torch.optim.Adam(model.parameters(), lr=1e-3))
    return (images / (time.perf_counter() - began),)


PROCESSES: dict[str, Callable[..., None]] = {
    "tutorial-training": tutorial_training,
    "timm-training": timm_training,
    "loop-over-images": loop_over_images,
}

if __name__ == "__main__":
    PROCESSES[sys.argv[1]](*sys.argv[2:])
