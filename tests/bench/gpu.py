"""The rows that need a CUDA device."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import ours
import rivals
import torch
from material import Material
from table import Block, Figures, Row, alternate, figures
from torchvision import models

from imgcls.machine import available_cpus

COPIES = 40  # of 244 photographs: an epoch of 9,760 images takes seconds
SEEDS = 5
RESNET9 = (  # Page's recipe, with a cosine instead of his triangle
    *("--batch-size", 512, "--optimizer", "sgd", "--nesterov", "--lr", 0.4, "--weight-decay", 0.0005),
    *("--label-smoothing", 0.2, "--alternate-flip", "--cutout", 8, "--ema"),
)
RESNET9_EPOCHS = {0.94: 10, 0.95: 16}
RESNET9_SECONDS = {0.94: 10, 0.95: 30}


def photographs(material: Material, pairs: int) -> list[Row]:
    """G1 and G2: batches ready on the device, from memory, from files."""
    data = material.repeated("photographs", COPIES)
    common = {"device": "cuda", "arch": "resnet50", "batch_size": 256, "val_split": 0.0}
    learner, files = ours.built(ours.settings(data, **common, cache="off"))
    other, memory = ours.built(ours.settings(data, **common, cache="memory"))
    ready, made = ours.made_ready(learner, files)
    count = files.train.order.count
    blocks: dict[str, Block] = {
        "eager": lambda: ours.run_steps(learner, made),
        "ready": lambda: ours.run_epoch(learner, ready),
        "memory": lambda: ours.run_epoch(other, memory),
        "files": lambda: ours.run_epoch(learner, files),
    }
    seconds = alternate(blocks, pairs)
    rates = {name: figures(outcome, lambda second: count / second) for name, outcome in seconds.items()}
    return [
        Row("G1", "ResNet-50 at 224, batches ready: eager", "img/s", rates["eager"], None, ">= 4000"),
        Row("G1", "ResNet-50 at 224, batches ready: as train runs it", "img/s", rates["ready"], None, ">= 5500"),
        Row("G2", "ResNet-50 at 224: from memory / batches ready", "img/s", rates["memory"], rates["ready"], ">= 0.95"),
        Row("G2", "ResNet-50 at 224: from files / batches ready", "img/s", rates["files"], rates["ready"]),
        Row("G2", "share of the time that files are waited for", "", figures(seconds["files"], column=1)),
    ]


def cifar(material: Material, pairs: int) -> list[Row]:
    """G3: all epochs of a run but the first."""
    asked = {"device": "cuda", "arch": "resnet18", "batch_size": 512, "epochs": pairs + 1}
    config = ours.settings(material.whole_cifar, **asked, out=str(material.folder / "gpu-cifar"))
    epochs = ours.trained_epochs(config)
    rates: Figures = [row["images_per_second"] for row in epochs[1:]]
    return [
        Row(
            "G3",
            "ResNet-18, small stem, CIFAR-10, batch 512: training on images in memory",
            "img/s",
            rates,
            None,
            ">= 50000",
        )
    ]


def five_seeds(material: Material, pairs: int) -> list[Row]:
    """G4: means of five seeds, whatever the number of pairs."""
    rows, out = list[Row](), material.folder / "gpu-seeds"
    for goal, epochs in RESNET9_EPOCHS.items():
        accuracies, training, whole = list[float](), list[float](), list[float]()
        for seed in range(SEEDS):
            ran = ours.trained(material.whole_cifar, "resnet9", epochs, out, *RESNET9, "--seed", seed, device="cuda")
            history = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            accuracies.append(history[-1]["val_acc"])
            training.append(sum(row["seconds"] for row in history))
            whole.append(ran.seconds)
        what = f"resnet9, {epochs} epochs of CIFAR-10, mean of {SEEDS} seeds"
        rows += [
            Row("G4", f"{what}: accuracy", "", [fmean(accuracies)], None, f">= {goal}"),
            Row("G4", f"{what}: training", "s", [fmean(training)], None, f"<= {RESNET9_SECONDS[goal]}"),
            Row("G4", f"{what}: whole process", "s", [fmean(whole)], None, "<= 30"),
        ]
    return rows


def stock(material: Material, pairs: int) -> list[Row]:
    """G5: the stock loop gets mixed precision, and a loader worker per core that stays."""
    small, large = material.whole_cifar, material.repeated("photographs", COPIES)
    mine, theirs = _against_stock(material, small, small / "train", 32, 512, pairs)
    ours_large, theirs_large = _against_stock(material, large, large, 224, 128, pairs)
    return [
        Row("G5", "ResNet-18, CIFAR-10: second epoch / stock AMP loop", "img/s", mine, theirs, ">= 5"),
        Row("G5", "ResNet-18, photographs: second epoch / stock AMP loop", "img/s", ours_large, theirs_large, ">= 2"),
    ]


def _against_stock(
    material: Material, data: Path, folder: Path, size: int, batch_size: int, pairs: int
) -> tuple[Figures, Figures]:
    """Return the images per second of second epochs of ours, and of the stock loop's epochs."""
    asked = {"arch": "resnet18", "stem": "standard", "size": size, "batch_size": batch_size, "epochs": 2}
    config = ours.settings(data, **asked, device="cuda", out=str(material.folder / "gpu-stock"))
    loader = rivals.stock_loader(folder, size, batch_size, available_cpus())
    model = models.resnet18(num_classes=len(list(folder.iterdir()))).cuda()
    optimizer, count = torch.optim.Adam(model.parameters(), lr=1e-3), len(list(folder.rglob("*.jpg")))

    def theirs() -> tuple[float]:
        began = time.perf_counter()
        rivals.train_epoch(model, loader, optimizer, "cuda")
        return (count / (time.perf_counter() - began),)

    def mine() -> tuple[float]:
        return (ours.trained_epochs(config)[1]["images_per_second"],)

    found = alternate({"ours": mine, "theirs": theirs}, pairs)
    return figures(found["ours"]), figures(found["theirs"])


def small_batches(material: Material, pairs: int) -> list[Row]:
    """G6: small batches as `train` runs them; without whole-step graphs they are the eager steps."""
    return [_small_batches(material, batch_size, pairs) for batch_size in (64, 128)]


def _small_batches(material: Material, batch_size: int, pairs: int) -> Row:
    config = ours.settings(material.cifar, device="cuda", arch="resnet18", batch_size=batch_size)
    (learner, files), (other, _) = ours.built(config), ours.built(config)
    ready, made = ours.made_ready(learner, files)
    blocks: dict[str, Block] = {
        "train": lambda: ours.run_epoch(learner, ready),
        "eager": lambda: ours.run_steps(other, made),
    }
    found = alternate(blocks, pairs)
    train, eager = (figures(outcome, lambda seconds: files.train.order.count / seconds) for outcome in found.values())
    what = f"ResNet-18 at 32 px, batch {batch_size}: as train runs it / eager"
    return Row("G6", what, "img/s", train, eager, ">= 1.8")


MEASURES: dict[Callable[[Material, int], list[Row]], tuple[str, ...]] = {
    photographs: ("G1", "G2"),
    cifar: ("G3",),
    stock: ("G5",),
    small_batches: ("G6",),
}
ON_REQUEST: dict[Callable[[Material, int], list[Row]], tuple[str, ...]] = {five_seeds: ("G4",)}
