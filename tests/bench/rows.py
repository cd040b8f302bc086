"""The benchmark: `make bench`, or `python tests/bench/rows.py --only S1,S4 --pairs 7`.

Each function measures what a few rows share, ours and theirs in turn, because the speed of a machine changes from
minute to minute. A target that is missed is no failure; what cannot be measured is.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gpu
import ours
import rivals
import torch
from company import NO_QUOTA, busy_process, one_cpu, within
from material import Material
from table import Block, Figures, Row, alternate, failure, figures, markdown
from torchvision import models

from imgcls.data.batch import Batch
from imgcls.machine import available_cpus, keep_freed_memory

ROOT = Path(__file__).parents[2]
NOT_INSTALLED = "not installed"
EPOCHS_IN_COMPANY = 4
PAUSE = 0.2  # seconds; others may still prefetch
# Runs a command and prints its peak memory; the benchmark itself would pass its own on to what it starts.
PEAK = (
    "import os, resource, subprocess, sys; os.environ['OMP_NUM_THREADS'] = '1'; "  # one is faster for a tiny network
    "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
)


def small_batches(material: Material, pairs: int) -> list[Row]:
    folder = material.cifar / "train"
    found = alternate(_pipelines(folder, 32, 64, folder, 10), pairs)
    what = "32 px, crop and flip: uint8 batches from memory / stock's, float and normalised"
    return [Row("S1", what, "img/s", figures(found["memory"]), figures(found["stock"]), ">= 20")]


def small_epoch(material: Material, pairs: int) -> list[Row]:
    # In a process that keeps freed memory, as the command does; here it would be kept for the rivals, too.
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=keep_freed_memory) as process:
        found = process.submit(ours.epoch_and_steps, material.cifar, 3 * pairs).result()
    what = "small-cnn, 5,000 images: epoch as trained / the same steps on ready batches"
    return [Row("S1", what, "s", figures(found["epoch"]), figures(found["steps"]), "<= 1.08")]


def photographs(material: Material, pairs: int) -> list[Row]:
    folder = material.repeated("photographs", 3)
    blocks = _pipelines(folder, 224, 32, folder, 3)
    blocks["timm"] = blocks["dali"] = NOT_INSTALLED
    if find_spec("timm"):
        loader = rivals.timm_loader(folder, 224, 32)
        blocks["timm"] = _drained(lambda: loader)
    if find_spec("nvidia") and find_spec("nvidia.dali"):
        blocks["dali"] = _drained(rivals.dali_epochs(folder, 224, 32))
    found = {name: figures(outcome) for name, outcome in alternate(blocks, pairs).items()}
    return [
        Row("S2", "photographs to 224, from files / stock", "img/s", found["files"], found["stock"], ">= 1.6"),
        Row("S2", "the same / DALI on the CPU, 2 threads", "img/s", found["files"], found["dali"], ">= 1"),
        Row("S2", "the same / timm's create_loader", "img/s", found["files"], found["timm"]),
        Row("S4", "photographs to 224, from memory / stock", "img/s", found["memory"], found["stock"], ">= 5"),
    ]


def large_photographs(material: Material, pairs: int) -> list[Row]:
    blocks = _pipelines(material.repeated("large", 2), 224, 8, material.repeated("large", 8), 5)
    found = {name: figures(outcome) for name, outcome in alternate(blocks, pairs).items()}
    return [
        Row("S3", "12 megapixels to 224, from files / stock", "img/s", found["files"], found["stock"], ">= 4.5"),
        Row("S4", "12 megapixels to 224, from memory / stock", "img/s", found["memory"], found["stock"], ">= 60"),
    ]


def whole_training(material: Material, pairs: int) -> list[Row]:
    data, out = material.cifar, material.folder / "trained"
    out.mkdir()

    def mine(arch: str, epochs: int, *options: str) -> Block:
        def block() -> tuple[float, float]:
            ran = ours.trained(data, arch, epochs, out / arch, *options)
            return ran.seconds, json.loads(ran.text)["seconds"]

        return block

    def theirs(name: str, epochs: int) -> Block:
        def block() -> tuple[float, float]:
            ran = ours.run(sys.executable, rivals.__file__, name, data, epochs, cwd=out)
            return ran.seconds, float(ran.text.split()[-1])

        return block

    found = alternate({"ours": mine("small-cnn", 6), "theirs": theirs("tutorial", 6)}, pairs, warm=False)
    blocks: dict[str, Block | str] = {"ours": NOT_INSTALLED, "theirs": NOT_INSTALLED}
    if find_spec("timm"):  # whose resnet18 has the standard stem
        blocks = {"ours": mine("resnet18", 3, "--stem", "standard"), "theirs": theirs("timm", 3)}
    other = alternate(blocks, pairs, warm=False)
    whole, training = ([figures(found[side], column=place) for side in ("ours", "theirs")] for place in (0, 1))
    what = "6 epochs of small-cnn, 5,000 files"
    timm = "3 epochs of resnet18 at 32 px: whole process / timm"
    return [
        Row("S5", f"{what}: whole process / tutorials' loop", "s", whole[0], whole[1], "<= 0.6"),
        Row("S5", f"{what}: training part / tutorials' loop", "s", training[0], training[1], "<= 0.45"),
        Row("S5", timm, "s", figures(other["ours"]), figures(other["theirs"]), "<= 0.8"),
    ]


def narrow_and_busy(material: Material, pairs: int) -> list[Row]:
    """The same training where the CPUs are not ours alone."""
    data, out = material.little_cifar, material.folder / "narrow"
    out.mkdir()

    def mine(before: Sequence[object]) -> tuple[float]:
        ran = ours.trained(data, "small-cnn", EPOCHS_IN_COMPANY, out / "small-cnn", before=before)
        return (json.loads(ran.text)["seconds"],)

    def theirs(before: Sequence[object]) -> tuple[float]:
        ran = ours.run(*before, sys.executable, rivals.__file__, "tutorial", data, EPOCHS_IN_COMPANY, cwd=out)
        return (float(ran.text.split()[-1]),)

    def beside(block: Callable[[Sequence[object]], tuple[float]]) -> tuple[float]:
        with busy_process():
            return block(())

    with one_cpu() as group:
        blocks: dict[str, Block | str] = {"ours": NO_QUOTA, "one thread": NO_QUOTA, "theirs": NO_QUOTA}
        if group is not None:
            inside = within(group)
            one_thread = (*inside, "env", "OMP_NUM_THREADS=1")
            blocks = {"ours": lambda: mine(inside), "one thread": lambda: mine(one_thread)}
            blocks["theirs"] = lambda: theirs(inside)
        quota = {side: figures(outcome) for side, outcome in alternate(blocks, pairs, warm=False).items()}
    busy = alternate({"ours": lambda: beside(mine), "theirs": lambda: beside(theirs)}, pairs, warm=False)
    what = f"{EPOCHS_IN_COMPANY} epochs of small-cnn, 1,000 files, {{}}: training part / tutorials' loop"
    return [
        Row("S11", what.format("in a quota of one CPU"), "s", quota["ours"], quota["theirs"], "<= 0.5"),
        Row("S11", "the same / with OMP_NUM_THREADS=1", "s", quota["ours"], quota["one thread"], "<= 1.25"),
        Row("S13", what.format("beside a busy process"), "s", figures(busy["ours"]), figures(busy["theirs"]), "<= 0.5"),
    ]


def recipe(material: Material, pairs: int) -> list[Row]:
    folder = material.cifar / "train"
    rate = alternate({"rate": lambda: rivals.recipe_rate(folder)}, pairs, warm=False)["rate"]
    minutes = figures(rate, lambda images_per_second: 50 * 50_000 / images_per_second / 60)
    return [
        Row("S6", "tutorials' recipe for CIFAR-10 (bn-cnn, Adam, PIL loader)", "img/s", figures(rate)),
        Row("S6", "its 50 epochs at that speed; our 90 % must take a tenth, and is not run here", "min", minutes),
    ]


def prediction(material: Material, pairs: int) -> list[Row]:
    folder, out = material.photographs / "val", material.folder / "resnet18"
    ours.trained(material.photographs, "resnet18", 1, out, "--limit", 8)
    ours.run(*ours.COMMAND, "export", "--ckpt", out / "best.pt")
    torch.save(models.resnet18(num_classes=2).state_dict(), out / "weights.pth")
    pictures = sorted(folder.rglob("*.jpg"))

    def predict(images: Path, ckpt: str) -> Block:
        def block() -> tuple[float, float]:
            ran = ours.run(*ours.COMMAND, "predict", images, "--ckpt", out / ckpt, "--device", "cpu")
            return ran.seconds, ran.after_loading

        return block

    def loop() -> tuple[float, float]:
        ran = ours.run(sys.executable, rivals.__file__, "loop", folder, out / "weights.pth")
        return ran.seconds, float(ran.text.split()[-1])

    def imports(names: str) -> Block:
        return lambda: (ours.run(sys.executable, "-c", f"import {names}").seconds,)

    blocks: dict[str, Block] = {"pt": predict(folder, "best.pt"), "onnx": predict(folder, "best.onnx"), "loop": loop}
    many = alternate(blocks, pairs, warm=False)
    blocks = {"pt": predict(pictures[0], "best.pt"), "onnx": predict(pictures[0], "best.onnx")}
    blocks |= {names: imports(names) for names in ("torch, torchvision", "onnxruntime, PIL")}
    one = {name: figures(outcome) for name, outcome in alternate(blocks, pairs, warm=False).items()}
    rate, loop_rate = (figures(many[name], lambda seconds: len(pictures) / seconds, 1) for name in ("pt", "loop"))
    whole = {name: figures(outcome) for name, outcome in many.items()}
    what = f"resnet18 at 224, {len(pictures)} photographs"
    single = "one image, whole process:"
    return [
        Row("S7", f"{what}: .pt once loaded / loop over images", "img/s", rate, loop_rate, ">= 1.6"),
        Row("S7", f"{what}: .pt, whole process / loop", "s", whole["pt"], whole["loop"], "<= 0.75"),
        Row("S7", f"{what}: .onnx, whole process / loop", "s", whole["onnx"], whole["loop"], "<= 0.3"),
        Row("S7", f"{single} .pt / import torch, torchvision", "s", one["pt"], one["torch, torchvision"], "<= 1.15"),
        Row("S7", f"{single} .onnx / import onnxruntime, PIL", "s", one["onnx"], one["onnxruntime, PIL"], "<= 2"),
    ]


def help_and_saving(material: Material, pairs: int) -> list[Row]:
    found = alternate(
        {
            "help": lambda: (ours.run(*ours.COMMAND, "--help").seconds,),
            "import": lambda: (ours.run(sys.executable, "-c", "import typer, rich").seconds,),
        },
        2 * pairs,
    )
    short = {"arch": "resnet18", "limit": 64, "workers": 0, "epochs": pairs, "out": str(material.folder / "saved")}
    # Without validation each epoch is the best.
    config = ours.settings(material.cifar / "train", **short, val_split=0.0)
    saving: Figures = [row["saving"] for row in ours.trained_epochs(config)]
    what = "--help / importing typer and rich"
    return [
        Row("S8", what, "s", figures(found["help"]), figures(found["import"]), "<= 1.5"),
        Row("S8", "saving best.pt and last.pt of resnet18 / one minute", "s", saving, [60.0] * pairs, "<= 0.01"),
    ]


def memory(material: Material, pairs: int) -> list[Row]:
    out = material.folder / "small"
    ours.trained(material.cifar, "simple-cnn", 1, out, "--limit", 64)
    image = next((material.cifar / "val").rglob("*.jpg"))

    def peak(count: int) -> Block:
        paths = material.folder / f"{count}.txt"
        paths.write_text(f"{image}\n" * count)
        command = (
            sys.executable,
            "-c",
            PEAK,
            *ours.COMMAND,
            "predict",
            "-",
            "--ckpt",
            out / "best.pt",
            "--device",
            "cpu",
        )
        return lambda: (float(ours.run(*command, stdin=paths).text),)

    blocks = {"many": peak(100_000), "few": peak(1_000)}
    many, few = (figures(outcome) for outcome in alternate(blocks, 1, warm=False).values())  # it does not vary
    return [
        Row("S9", "predict, peak memory, once: 100,000 paths / 1,000 paths", "MB", many, few, "<= 1.1"),
        Row("S9", "predict, peak memory, once: 100,000 paths", "MB", many, None, "<= 1500"),
    ]


def frozen(material: Material, pairs: int) -> list[Row]:
    short = {"arch": "resnet18", "epochs": 2, "limit": 32, "batch_size": 8, "out": str(material.folder / "frozen")}

    def second_epoch(augment: str) -> Block:
        config = ours.settings(material.photographs, **short, freeze_epochs="all", augment=augment)
        return lambda: (ours.trained_epochs(config)[1]["seconds"],)

    blocks = {"features": second_epoch("none"), "backbone": second_epoch("light")}
    features, backbone = (figures(outcome) for outcome in alternate(blocks, pairs, warm=False).values())
    what = "frozen resnet18 at 224, second epoch: on features / with the backbone running"
    return [Row("S10", what, "s", features, backbone, "<= 0.05")]


def _drained(epoch: Callable[[], Iterable[Any]]) -> Block:
    """Return a block that goes through batches, ours or pairs of images and labels, and tells the images per second."""

    def block() -> tuple[float]:
        time.sleep(PAUSE)
        began = time.perf_counter()
        images = sum(len(batch.labels if isinstance(batch, Batch) else batch[1]) for batch in epoch())
        return (images / (time.perf_counter() - began),)

    return block


def _pipelines(folder: Path, size: int, batch_size: int, many: Path, times: int) -> dict[str, Block | str]:
    """Return the ways from files to batches; memory, being so much faster, `times` epochs of the folder `many`."""
    asked: dict[str, Any] = {"size": size, "batch_size": batch_size, "workers": rivals.WORKERS}
    stock, files = rivals.stock_loader(folder, size, batch_size), ours.epochs(ours.batches(folder, **asked))
    held = ours.epochs(ours.in_store(ours.batches(many, **asked)), times)
    return {
        "stock": _drained(lambda: stock),
        "files": _drained(files),
        "memory": _drained(held),
    }


Measure = Callable[[Material, int], list[Row]]
MEASURES: dict[Measure, tuple[str, ...]] = {
    small_batches: ("S1",),
    small_epoch: ("S1",),
    photographs: ("S2", "S4"),
    large_photographs: ("S3", "S4"),
    whole_training: ("S5",),
    narrow_and_busy: ("S11", "S13"),
    recipe: ("S6",),
    prediction: ("S7",),
    help_and_saving: ("S8",),
    memory: ("S9",),
    frozen: ("S10",),
}


def measured(measure: Measure, targets: tuple[str, ...], material: Material, pairs: int) -> list[Row]:
    """Return the rows of a function; when it fails as a whole, a row for each of its targets that says why."""
    began = time.perf_counter()
    try:
        rows = measure(material, pairs)
    except Exception as error:
        rows = [Row(target, measure.__name__.replace("_", " "), "", failure(error)) for target in targets]
    print(f"{measure.__name__}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def machine() -> str:
    """Name the processor, the GPU and the versions."""
    model, info = "unknown CPU", Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        model = next(iter(names), model)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow"))
    return f"{model}, {available_cpus()} cores, {device}; {versions}"


def main() -> int:
    """Print the table; 1 when something could not be measured."""
    parser = argparse.ArgumentParser(description="Print how fast imgcls is against what a tutorial would write.")
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs per row [5]")
    parser.add_argument("--only", default="", help="targets, for example S1,S4; G4 runs only when it is named")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the archives")
    given = parser.parse_args()
    only = {target.upper() for target in given.only.split(",") if target}
    on_gpu, measures = torch.cuda.is_available(), MEASURES
    if on_gpu:
        measures = measures | gpu.MEASURES | (gpu.ON_REQUEST if only else {})
    if only:
        measures = {key: targets for key, targets in measures.items() if only & {*targets}}
    if unknown := only - {target for targets in measures.values() for target in targets}:
        parser.error(f"--only {','.join(sorted(unknown))}: no such target on this machine")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed then too
    with tempfile.TemporaryDirectory(prefix="imgcls-bench-") as folder:
        material = Material(Path(folder), given.data.absolute())
        rows = [row for key, targets in measures.items() for row in measured(key, targets, material, given.pairs)]
    rows = [row for row in rows if not only or row.target in only]
    drawn = f"; drawn pictures in place of {', '.join(material.drawn)}" if material.drawn else ""
    print(f"{machine()}; ratios of {given.pairs} alternating pairs{drawn}\n\n{markdown(rows)}")
    return int(any(row.verdict.startswith("failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
