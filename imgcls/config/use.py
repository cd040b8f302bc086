"""The settings of the commands that use a trained model, and of those that need none."""

from __future__ import annotations

import os
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal

from imgcls import paths
from imgcls.config.common import (
    SOURCE,
    amp_setting,
    check_device,
    ckpt_setting,
    device_setting,
    positive_setting,
    workers_setting,
)
from imgcls.errors import UsageError
from imgcls.registry import EXPORTERS
from imgcls.settings import check, setting


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What `evaluate` can be told; paths may be `pathlib.Path`."""

    data: str = setting(MISSING, "Folder of images, or a data set by name.", metavar=SOURCE)
    ckpt: str = ckpt_setting()
    split: Literal["train", "val", "test"] | None = setting(
        None, "Which images.", unset="test if there is one, else validation"
    )
    out: str | None = setting(
        None,
        "Folder for report.json, metrics.csv, confusion.png, examples.png and, for two classes, roc.png.",
        unset="none",
        metavar="DIR",
    )
    predictions: str | None = setting(
        None, "One row per image, the worst mistake first.", unset="none", metavar="F.csv"
    )
    positive: str | None = positive_setting()
    threshold: float | None = setting(
        None,
        "Two classes: the answer is positive from this probability on.",
        low=0,
        high=1,
        unset="0.5",
        metavar="P",
    )
    batch_size: int = setting(64, "Images per forward pass.", low=1)
    limit: int | None = setting(None, "Use at most this many images.", low=1, unset="all")
    workers: int | None = workers_setting()
    device: str = device_setting()
    amp: bool = amp_setting()

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: naming the flag, the value and what is allowed.
        """
        check(self)
        check_device(self.device, self.amp)

    def check_paths(self) -> None:
        """Hold paths against what is there; writes nothing.

        Raises:
            UsageError, CheckpointError: what is read does not exist, or is of another kind.
            UsageError, WriteError: the folder or the table cannot be written.
        """
        if self.out is not None:
            paths.check_outside(self.out, self.data, "--out")
            paths.check_new_folder(self.out)
        if self.predictions is not None:
            paths.check_result(self.predictions, "--predictions", data=self.data, kept=[self.ckpt], kind="CSV")
        paths.check_model(self.ckpt, "--ckpt")
        paths.check_source(self.data)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What `predict` can be told."""

    ckpt: str = ckpt_setting()
    top_k: int = setting(1, "Classes per image.", low=1, metavar="K")
    format: Literal["text", "json", "jsonl", "csv"] = setting("text", "Form of the rows.")
    threshold: float | None = setting(
        None,
        "Two classes: the answer is positive from this probability on; more: no answer below it.",
        low=0,
        high=1,
        unset="none",
        metavar="P",
    )
    positive: str | None = positive_setting()
    batch_size: int = setting(32, "Images per forward pass.", low=1)
    workers: int | None = workers_setting()
    device: str = device_setting()
    amp: bool = amp_setting()

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: naming the flag, the value and what is allowed.
        """
        check(self)
        check_device(self.device, self.amp)

    def check_paths(self) -> None:
        """Hold the checkpoint against what is there.

        Raises:
            UsageError, CheckpointError: it does not exist, or is of another kind.
        """
        paths.check_model(self.ckpt, "--ckpt")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What `export` can be told; paths may be `pathlib.Path`."""

    ckpt: str = setting("best.pt", "Checkpoint of imgcls train.", metavar="FILE")
    format: str = setting("onnx", "Kind of file.", known=EXPORTERS)
    output: str | None = setting(
        None, "The file to write.", unset="the checkpoint's name, ending in the format", metavar="FILE"
    )
    data: str | None = setting(
        None,
        "Compare on images of this data set (at most 256 of its test, else validation images).",
        unset="drawn images",
        metavar=SOURCE,
    )
    input: Literal["uint8", "float32"] = setting("uint8", "What the network takes: levels 0..255, or 0..1.")

    @property
    def target(self) -> str:
        """The file to write."""
        return self.output or f"{os.path.splitext(self.ckpt)[0]}.{self.format}"

    def __post_init__(self) -> None:
        """Check every field, and that the name of the file is one of its format.

        Raises:
            UsageError: naming the flag, the value and what is allowed.
        """
        check(self)
        if self.format == "safetensors" and self.input != "uint8":
            raise UsageError(f"--input {self.input}: safetensors holds weights and no network; drop --input")
        target, extension = self.target, Path(self.target).suffix[1:]
        if extension == "pt":
            raise UsageError(f"--output {target}: the name of a checkpoint; type --output {target[:-3]}.{self.format}")
        if extension in EXPORTERS and extension != self.format:
            raise UsageError(
                f"--output {target}: the name of another format; type --format {extension} or another name"
            )

    def check_paths(self) -> None:
        """Hold paths against what is there; writes nothing.

        Raises:
            UsageError, CheckpointError: what is read does not exist, or is of another kind.
            UsageError, WriteError: the file, or the description beside it, cannot be written.
        """
        target = self.target
        if os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target):
            raise UsageError(f"--output {target}: is a device or a pipe, and the export is read again; name a file")
        paths.check_checkpoint(self.ckpt, "--ckpt")
        paths.check_result(target, "--output", data=self.data, kept=[self.ckpt], kind=self.format)
        if self.format == "safetensors":
            paths.check_result(f"{target}.json", "--output", data=self.data, kept=[self.ckpt], kind="JSON")
        if self.data is not None:
            paths.check_source(self.data)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What `sample-data` can be told."""

    seed: int = setting(0, "Another seed, other pictures.", low=0)

    def __post_init__(self) -> None:
        """Check the seed."""
        check(self)
