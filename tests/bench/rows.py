"""The benchmark: `make bench`, or `python tests/bench/rows.py --only S1,S4 --pairs 7`.

Each function measures what a few rows share, ours and theirs in turn, because the machines' speed changes from minute
to minute. Targets are those of the table's column "goal"; a target that is missed is no failure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gpu
import ours
import rivals
import torch
from material import Material
from table import Block, Goal, Outcome, Row, alternate, failure, figure, markdown

from imgcls.inference.pool import available_cpus

ROOT = Path(__file__).parents[2]
RATE, SECONDS, MEGABYTES = "img/s", "s", "MB"
SMALL: dict[str, Any] = {"arch": "small-cnn", "batch_size": 64, "workers": 2}
MINUTE_OF_TRAINING = 60.0

# One process that reports the peak memory of another, which would else be credited with what starts it.
PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def drained(images: int, epoch: Callable[[], Iterable[Any]]) -> Block:
    """Return a block that goes through batches and tells the images per second."""

    def block() -> tuple[float]:
        began = time.perf_counter()
        for _ in epoch():
            pass
        return (images / (time.perf_counter() - began),)

    return block


def pipelines(
    folder: Path, size: int, batch_size: int, *, many: Path, times: int, others: bool
) -> dict[str, Block | str]:
    """Return the ways from a folder of files to batches; from memory it is `times` epochs of the folder `many`."""
    few = ours.batches(folder, size=size, batch_size=batch_size, workers=2)
    held = ours.cached(ours.batches(many, size=size, batch_size=batch_size, workers=2))
    count = len(few.pictures)
    stock = rivals.stock_loader(folder, size, batch_size)
    blocks: dict[str, Block | str] = {
        "stock": drained(count, lambda: stock),
        "files": drained(count, ours.epochs(few)),
        "memory": drained(len(held.pictures) * times, ours.epochs(held, times)),
    }
    if others:
        blocks["timm"] = blocks["dali"] = "not installed"
        if find_spec("timm"):
            loader = rivals.timm_loader(folder, size, batch_size)
            blocks["timm"] = drained(count, lambda: loader)
        if find_spec("nvidia") and find_spec("nvidia.dali"):
            blocks["dali"] = drained(count, rivals.dali_batches(folder, size, batch_size))
    return blocks


def small_batches(material: Material, pairs: int) -> list[Row]:
    """S1: batches of small images from memory against the stock loader."""
    folder = material.cifar / "train"
    blocks = pipelines(folder, 32, 64, many=folder, times=10, others=False)
    del blocks["files"]
    found = alternate(blocks, pairs)
    what = "32 px: batches with crop and flip, from memory / stock 2-worker pipeline"
    return [Row("S1", what, RATE, figure(found["memory"]), figure(found["stock"]), Goal(">=", 20))]


def small_epoch(material: Material, pairs: int) -> list[Row]:
    """S1: what an epoch of training costs beside its steps."""
    state, plan = ours.built(ours.settings(material.cifar, **SMALL))
    _, made = ours.on_ready_batches(plan)
    found = alternate(
        {
            "epoch": lambda: ours.run_epoch(state, plan),
            "steps": lambda: ours.run_steps(state, plan, made),
        },
        pairs,
    )
    what = "small-cnn, 5,000 images of 32 px: epoch as trained / same steps on ready batches"
    return [Row("S1", what, SECONDS, figure(found["epoch"]), figure(found["steps"]), Goal("<=", 1.08))]


def photographs(material: Material, pairs: int) -> list[Row]:
    """S2, S4: photographs of 0.2 megapixels, random crops to 224."""
    folder = material.photographs_again(3)
    found = alternate(pipelines(folder, 224, 32, many=folder, times=3, others=True), pairs)
    files, memory = figure(found["files"]), figure(found["memory"])
    stock, timm, dali = (figure(found[name]) for name in ("stock", "timm", "dali"))
    return [
        Row("S2", "photographs to 224, from files / stock", RATE, files, stock, Goal(">=", 1.6)),
        Row("S2", "the same / DALI on the CPU, 2 threads", RATE, files, dali, Goal(">=", 1)),
        Row("S2", "the same / timm create_loader", RATE, files, timm),
        Row("S4", "photographs to 224, from memory / stock", RATE, memory, stock, Goal(">=", 5)),
    ]


def large_photographs(material: Material, pairs: int) -> list[Row]:
    """S3, S4: photographs of 12 megapixels, random crops to 224."""
    found = alternate(pipelines(material.large(2), 224, 8, many=material.large(8), times=5, others=False), pairs)
    files, memory, stock = (figure(found[name]) for name in ("files", "memory", "stock"))
    return [
        Row("S3", "12-megapixel photographs to 224, from files / stock", RATE, files, stock, Goal(">=", 4.5)),
        Row("S4", "12-megapixel photographs to 224, from memory / stock", RATE, memory, stock, Goal(">=", 60)),
    ]


def whole_training(material: Material, pairs: int) -> list[Row]:
    """S5: training from shell to shell on 5,000 small JPEG files."""
    data, out = material.cifar, material.folder / "whole"
    out.mkdir()

    def mine(arch: str, epochs: int, *options: str) -> Block:
        def block() -> tuple[float, float]:
            line = (*ours.COMMAND, "train", "--data", data, "--arch", arch, "--epochs", epochs, *ours.PLAIN, *options)
            text, seconds = ours.run(*line, "--out", out / arch, "--json", "-")
            return seconds, json.loads(text)["seconds"]

        return block

    def theirs(name: str, epochs: int) -> Block:
        def block() -> tuple[float, float]:
            text, seconds = ours.run(sys.executable, rivals.__file__, name, data, epochs, cwd=out)
            return seconds, float(text.split()[-1])

        return block

    timm = theirs("timm-training", 3) if find_spec("timm") else "not installed"
    found = alternate({"ours": mine("small-cnn", 6), "theirs": theirs("tutorial-training", 6)}, pairs, warm=False)
    other: dict[str, Outcome] = {"ours": "not installed", "theirs": "not installed"}
    if not isinstance(timm, str):
        other = alternate({"ours": mine("resnet18", 3, "--stem", "standard"), "theirs": timm}, pairs, warm=False)
    whole, training = ([figure(found[side], column) for side in ("ours", "theirs")] for column in (0, 1))
    return [
        Row(
            "S5",
            "small-cnn, 6 epochs of 5,000 files: whole process / tutorials' loop",
            SECONDS,
            *whole,
            Goal("<=", 0.6),
        ),
        Row("S5", "the same: training part", SECONDS, *training, Goal("<=", 0.45)),
        Row(
            "S5",
            "resnet18 at 32 px, 3 epochs of 5,000 files: whole process / timm",
            SECONDS,
            figure(other["ours"]),
            figure(other["theirs"]),
            Goal("<=", 0.8),
        ),
    ]


def tutorial_recipe(material: Material, pairs: int) -> list[Row]:
    """S6: how long the tutorials' recipe takes for CIFAR-10; our side is a training of its own, not run here."""
    folder = material.cifar / "val"
    found = alternate({"theirs": lambda: rivals.bn_cnn_rate(folder, 1000)}, pairs)
    rates = figure(found["theirs"])
    minutes = rates if isinstance(rates, str) else [50 * 50_000 / rate / 60 for rate in rates]
    return [
        Row("S6", "tutorials' recipe (bn-cnn, Adam, PIL loader): its speed", RATE, rates),
        Row("S6", "its 50 epochs of CIFAR-10; 90 % must take us a tenth (not run here)", "min", minutes),
    ]


def prediction(material: Material, pairs: int) -> list[Row]:
    """S7: predict from a shell."""
    folder, place = material.photographs / "val", material.folder / "resnet18"
    pt = ours.checkpoint(place, material.photographs, "resnet18")
    onnx = ours.exported(pt)
    weights = place / "weights.pth"
    torch.save(rivals.models.resnet18(num_classes=2).state_dict(), weights)
    one = next(folder.rglob("*.jpg"))

    def predict(images: Path, ckpt: Path) -> Block:
        return lambda: ours.answered(*ours.COMMAND, "predict", images, "--ckpt", ckpt)

    def importing(names: str) -> Block:
        return lambda: (ours.run(sys.executable, "-c", f"import {names}")[1],)

    loop = (sys.executable, rivals.__file__, "loop-over-images", folder, weights)
    many = alternate(
        {"pt": predict(folder, pt), "onnx": predict(folder, onnx), "loop": lambda: ours.answered(*loop)},
        pairs,
        warm=False,
    )
    single = alternate(
        {
            "pt": predict(one, pt),
            "torch": importing("torch, torchvision"),
            "onnx": predict(one, onnx),
            "onnxruntime": importing("onnxruntime, PIL.Image"),
        },
        pairs,
    )
    count = len(list(folder.rglob("*.jpg")))
    loaded, looped = (
        seconds if isinstance(seconds, str) else [count / one for one in seconds]
        for seconds in (figure(many["pt"], 1), figure(many["loop"], 1))
    )
    whole = {name: figure(outcome) for name, outcome in (many | {f"one {key}": single[key] for key in single}).items()}
    return [
        Row(
            "S7",
            f"resnet18 at 224, {count} photographs, .pt, once loaded / loop over images",
            RATE,
            loaded,
            looped,
            Goal(">=", 1.6),
        ),
        Row("S7", "the same: whole process", SECONDS, whole["pt"], whole["loop"], Goal("<=", 0.75)),
        Row("S7", ".onnx: whole process / loop over images", SECONDS, whole["onnx"], whole["loop"], Goal("<=", 0.3)),
        Row(
            "S7",
            "one image, .pt / importing torch and torchvision",
            SECONDS,
            whole["one pt"],
            whole["one torch"],
            Goal("<=", 1.15),
        ),
        Row(
            "S7",
            "one image, .onnx / importing onnxruntime and Pillow",
            SECONDS,
            whole["one onnx"],
            whole["one onnxruntime"],
            Goal("<=", 2),
        ),
    ]


def start_and_save(material: Material, pairs: int) -> list[Row]:
    """S8: the help, and the checkpoints of an epoch."""
    found = alternate(
        {
            "help": lambda: (ours.run(*ours.COMMAND, "--help")[1],),
            "import": lambda: (ours.run(sys.executable, "-c", "import typer, rich")[1],),
        },
        2 * pairs,
    )
    config = ours.settings(
        *(material.cifar,), epochs=pairs, limit=64, workers=0, out=str(material.folder / "saved"), overwrite=True
    )
    shares = [row["saving"] / MINUTE_OF_TRAINING for row in ours.epochs_of(config)]
    return [
        Row(
            "S8",
            "--help / importing typer and rich",
            SECONDS,
            figure(found["help"]),
            figure(found["import"]),
            Goal("<=", 1.5),
        ),
        Row("S8", "saving resnet18 (best.pt, last.pt), share of a minute", "", shares, None, Goal("<=", 0.01)),
    ]


def memory(material: Material, pairs: int) -> list[Row]:
    """S9: peak memory of predict over many paths; memory is measured once, it does not vary."""
    pt = ours.checkpoint(material.folder / "tiny", material.cifar, "small-cnn")
    image = next((material.cifar / "val").rglob("*.jpg"))

    def peak(count: int) -> Block:
        def block() -> tuple[float]:
            paths = material.folder / f"paths-{count}.txt"
            paths.write_text(f"{image}\n" * count)
            line = (*ours.COMMAND, "predict", "-", "--ckpt", pt)
            return (int(ours.run(sys.executable, "-c", PEAK, *line, stdin=paths)[0]) / 1024,)

        return block

    found = alternate({"many": peak(100_000), "few": peak(1_000)}, 1, warm=False)
    many, few = figure(found["many"]), figure(found["few"])
    return [
        Row("S9", "predict, peak memory: 100,000 paths / 1,000 paths", MEGABYTES, many, few, Goal("<=", 1.1)),
        Row("S9", "the same: megabytes", MEGABYTES, many, None, Goal("<=", 1500)),
    ]


def frozen(material: Material, pairs: int) -> list[Row]:
    """S10: an epoch on the features of a frozen backbone, against one that runs the backbone."""
    common = {"arch": "resnet18", "epochs": 2, "limit": 64, "batch_size": 16, "workers": 2, "freeze_epochs": "all"}

    def second_epoch(augment: str) -> Block:
        out = str(material.folder / "frozen")
        config = ours.settings(material.photographs, **common, augment=augment, out=out, overwrite=True)
        return lambda: (ours.epochs_of(config)[1]["seconds"],)

    found = alternate({"features": second_epoch("none"), "backbone": second_epoch("light")}, pairs, warm=False)
    what = "resnet18 at 224, frozen: second epoch on features / with the backbone running"
    return [Row("S10", what, SECONDS, figure(found["features"]), figure(found["backbone"]), Goal("<=", 1 / 20))]


@dataclass(frozen=True)
class Group:
    """Rows that are measured together."""

    targets: tuple[str, ...]
    measure: Callable[[Material, int], list[Row]]


GROUPS = (
    Group(("S1",), small_batches),
    Group(("S1",), small_epoch),
    Group(("S2", "S4"), photographs),
    Group(("S3", "S4"), large_photographs),
    Group(("S5",), whole_training),
    Group(("S6",), tutorial_recipe),
    Group(("S7",), prediction),
    Group(("S8",), start_and_save),
    Group(("S9",), memory),
    Group(("S10",), frozen),
)
GPU_GROUPS = (
    Group(("G1", "G2"), gpu.photographs),
    Group(("G3",), gpu.cifar),
    Group(("G5",), gpu.stock),
    Group(("G6",), gpu.small_batches),
)
ON_REQUEST = (Group(("G4",), gpu.five_seeds),)


def chosen(only: set[str]) -> list[Group]:
    """Return the groups to run: those named, or all that this machine can run in minutes."""
    groups = GROUPS + (GPU_GROUPS if torch.cuda.is_available() else ())
    if not only:
        return list(groups)
    return [group for group in groups + ON_REQUEST if only & set(group.targets)]


def measured(group: Group, material: Material, pairs: int) -> list[Row]:
    """Return the rows of a group; when it fails as a whole, one for each of its targets that says why."""
    began = time.perf_counter()
    try:
        rows = group.measure(material, pairs)
    except Exception as error:
        rows = [Row(target, group.measure.__name__, "", failure(error)) for target in group.targets]
    print(f"{group.measure.__name__}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def machine() -> str:
    """Name the processor, the GPU and the versions."""
    model = "unknown processor"
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    gpu_name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow"))
    return f"{model}, {available_cpus()} cores, {gpu_name}; {versions}"


def main() -> int:
    """Print the table; 1 when a row could not be measured."""
    parser = argparse.ArgumentParser(description="Print how fast imgcls is against what a tutorial would write.")
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs per row [5]")
    parser.add_argument("--only", default="", help="targets, for example S1,S4; G4 runs only when named")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the archives")
    arguments = parser.parse_args()
    only = {target.upper() for target in arguments.only.split(",") if target}
    with tempfile.TemporaryDirectory(prefix="imgcls-bench-") as folder:
        material = Material(Path(folder), arguments.data)
        rows = [row for group in chosen(only) for row in measured(group, material, arguments.pairs)]
    rows = [row for row in rows if not only or row.target in only]
    print(f"{machine()}; medians of {arguments.pairs} alternating pairs")
    if material.drawn:
        print(f"Drawn pictures in place of {', '.join(material.drawn)}.")
    print(f"\n{markdown(rows)}")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
