"""`imgcls export`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from imgcls.cli.console import Console
from imgcls.cli.options import Given, JsonOption, with_settings
from imgcls.config import ExportConfig
from imgcls.errors import counted
from imgcls.settings import from_dict

if TYPE_CHECKING:
    from imgcls.schema import Exported


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


@with_settings(ExportConfig)
def export(given: Given, json: JsonOption = None) -> None:
    """Write a checkpoint for other programs, and prove that the file gives the same answers.

    imgcls export --ckpt best.pt --format onnx --data dataset/
    """
    config, console = from_dict(ExportConfig, given), Console(json)
    console.check_json(config.data, [config.ckpt, config.target])
    config.check_paths()
    from imgcls.cli.progress import Progress
    from imgcls.exporters.export import export_checkpoint

    done = export_checkpoint(config, Progress(console))
    _show(done, config, console)
    console.write_json(asdict(done))


def _show(done: Exported, config: ExportConfig, console: Console) -> None:
    console.say(f"{done.path}: {done.format}, {done.bytes / 2**20:.1f} MiB, {done.input} images")
    if done.format == "safetensors":
        console.say(f"{done.path}.json: class names and preprocessing, as in the file's header")
    hint = "" if config.data else "; --data compares your own"
    images, sizes = counted(done.images, "image"), ", ".join(map(str, done.batch_sizes))
    console.say(
        f"agrees with the checkpoint on {images} ({done.compared}{hint}) at batch sizes {sizes}: "
        f"largest difference {done.probability_difference:.2g} in probability"
    )
