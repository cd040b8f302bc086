"""Exporting a checkpoint: write under a temporary name, run the file in a fresh process, compare, and only then rename.

Knows the formats by name only.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from imgcls import checkpoint, files
from imgcls.config import ExportConfig
from imgcls.data import draws
from imgcls.data.pictures import Pictures
from imgcls.data.splits import open_source
from imgcls.device import fit_threads
from imgcls.errors import ExportError, ImgclsError, NonFiniteError, counted
from imgcls.events import Report, Said, silent
from imgcls.exporters.model import Exportable, exportable
from imgcls.exporters.verify import BATCHES, answers
from imgcls.inference.model import Logits, softmax
from imgcls.pixels.decode import Pixels
from imgcls.registry import EXPORTERS, resolve
from imgcls.schema import Exported, ModelCard, Preprocess
from imgcls.settings import from_dict

MOST_IMAGES = 256  # of --data that are compared
DRAWN = 2 * sum(BATCHES)

PROBABILITY_LIMIT = 1e-4
# A network that is sure of every image would hide a wrong graph in its probabilities; its logits do not. They are held
# against their own range. Right exports of torchvision's networks differ by 1e-7 to 3e-5 of it, wrong ones by a tenth.
LOGITS_LIMIT = 1e-3


def export(
    ckpt: str | os.PathLike[str] = "best.pt",
    format: str = "onnx",
    *,
    output: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    input: str = "uint8",
    report: Report = silent,
) -> Exported:
    """Export a checkpoint and prove that the file gives the checkpoint's answers.

    Args:
        ckpt: checkpoint of `imgcls train`.
        format: a name in `registry.EXPORTERS`.
        output: the file to write; None: beside the checkpoint, with the format as extension.
        data: folder or data set whose images are compared; None: drawn ones.
        input: "uint8" (levels 0..255) or "float32" (0..1), what the exported network takes.
        report: receives progress.

    Raises:
        UsageError: an unknown format or input, no such checkpoint or data, or a package that is not installed.
        CheckpointError: not a valid checkpoint.
        DataError: an image of `data` cannot be read.
        ExportError: the network cannot be exported, or the export disagrees; an older `output` is left alone.
        WriteError: `output` cannot be written.
    """
    given = {"ckpt": ckpt, "format": format, "output": output, "data": data, "input": input}
    return export_checkpoint(from_dict(ExportConfig, given), report)


def export_checkpoint(config: ExportConfig, report: Report = silent) -> Exported:
    """Do what `export` says, with the settings of the command."""
    began = time.monotonic()
    fit_threads()
    config.check_paths()
    target, format = config.target, config.format
    loaded = checkpoint.load(config.ckpt)
    images, where = comparison_images(config.data, loaded.card.preprocess)
    model = exportable(loaded, config.input)
    report(Said(f"writing {target} ({format}, {loaded.card.arch})"))
    with files.replacing(target) as temporary:
        _write(format, model, temporary)
        expected = answers(exportable(loaded, "uint8").as_model(), images)
        if not np.isfinite(expected).all():
            raise NonFiniteError(config.ckpt)
        report(Said(f"running it in a fresh process on {counted(len(images), 'image')} ({where})"))
        probability, share = _compare(target, format, expected, *_run(target, format, temporary, images), loaded.card)
        size = temporary.stat().st_size
    if format == "safetensors":
        files.write_text(f"{target}.json", model.description + "\n")
    return Exported(
        path=target,
        format=format,
        input=config.input,
        bytes=size,
        images=len(images),
        compared=where,
        batch_sizes=BATCHES,
        probability_difference=probability,
        logits_difference=share,
        seconds=time.monotonic() - began,
    )


def comparison_images(data: str | None, preprocess: Preprocess) -> tuple[Pixels, str]:
    """Return the images to compare, uint8 [n, S, S, 3], and what they are: enough for a batch of each size.

    Raises:
        UsageError: no such data.
        DataError: an image cannot be read.
    """
    # Coarse patterns: pixel noise would average out to grey in every network.
    coarse = np.random.default_rng(0).integers(0, 256, (DRAWN, 8, 8, 3), dtype=np.uint8)
    side = preprocess.size
    drawn = np.stack([np.asarray(Image.fromarray(pattern).resize((side, side))) for pattern in coarse])
    if data is None:
        return drawn, "drawn images"
    splits = open_source(data).splits
    listing = splits[next(name for name in ("test", "val", "train") if name in splits)]()
    chosen = listing.images.take(draws.sample(0, len(listing.images), MOST_IMAGES))
    pictures = Pictures(chosen, preprocess)
    images = np.stack([pictures[index] for index in range(len(pictures))])
    if len(images) < sum(BATCHES):
        return np.concatenate([images, drawn]), f"{listing.where}, and drawn images"
    return images, listing.where


def _write(format: str, model: Exportable, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporters warn about their own insides
            resolve(f"{EXPORTERS[format]}:write")(model, path)
    except (ImgclsError, OSError, MemoryError, ImportError):
        raise
    except Exception as error:  # the exporters have a class for each kind of failure
        problem = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExportError(f"{model.card.arch} cannot be written as {format}: {problem}; {_other(format)}") from error


def _run(target: str, format: str, path: Path, images: Pixels) -> tuple[Logits, dict[str, Any]]:
    """Run a file in a fresh process; return the logits and the card found in it."""
    with tempfile.TemporaryDirectory(prefix="imgcls-") as folder:
        given, answered = Path(folder) / "images.npy", Path(folder) / "answers.npz"
        content = io.BytesIO()
        np.save(content, images)
        files.write_bytes(given, content.getvalue())  # this disk may be full where that of the export is not
        # -P: a numpy.py in the current folder is none of ours.
        command = [sys.executable, "-P", "-W", "ignore", "-m", "imgcls.exporters.verify"]
        command += [format, str(path), str(given), str(answered)]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | threads, check=False
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            problem = said[-1] if said else f"it was ended by signal {-done.returncode}"
            raise ExportError(f"{target}: not written: the file fails in a fresh process: {problem}; {_other(format)}")
        with np.load(answered, allow_pickle=False) as answer:
            return answer["logits"], json.loads(str(answer["card"]))


def _compare(
    target: str, format: str, expected: Logits, found: Logits, found_card: dict[str, Any], card: ModelCard
) -> tuple[float, float]:
    """Return the largest difference in probability, and that of logits as a share of their range.

    Raises:
        ExportError: one is over its limit, an answer is not finite, or the file describes another model.
    """
    problem, probability, share = None, 0.0, 0.0
    if found_card != json.loads(json.dumps(card.to_dict())):
        problem = "it describes another model"
    elif not np.isfinite(found).all():
        problem = "it gives NaN or infinite logits"
    else:
        probability = float(np.abs(softmax(found) - softmax(expected)).max())
        share = float(np.abs(found - expected).max() / max(np.ptp(expected), np.finfo(np.float32).tiny))
        if probability > PROBABILITY_LIMIT:
            problem = f"its probabilities differ by up to {probability:.1e} (limit {PROBABILITY_LIMIT:.0e})"
        elif share > LOGITS_LIMIT:
            problem = f"its logits differ by up to {share:.1e} of their range (limit {LOGITS_LIMIT:.0e})"
    if problem is not None:
        raise ExportError(
            f"{target}: not written: the {format} file disagrees with the checkpoint: {problem}; {_other(format)}"
        )
    return probability, share


def _other(format: str) -> str:
    return f"type --format {'onnx' if format == 'pt2' else 'pt2'}"
