"""`imgcls export`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from imgcls.cli.options import JsonOption, complete_data
from imgcls.cli.output import talk, write_json
from imgcls.errors import counted
from imgcls.files import check_result
from imgcls.registry import EXPORTERS


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    ckpt: Annotated[str, typer.Option("--ckpt", metavar="FILE", help="Checkpoint of imgcls train.")] = "best.pt",
    format: Annotated[
        str,
        typer.Option("--format", metavar="|".join(EXPORTERS), help="Kind of file.", autocompletion=lambda: EXPORTERS),
    ] = "onnx",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="FILE",
            show_default="the checkpoint's name, ending in the format",
            help="The file to write.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="FOLDER|NAME[:ROOT]",
            show_default="drawn images",
            autocompletion=complete_data,
            help="Compare on images of this data set (at most 256 of its test, else validation images).",
        ),
    ] = None,
    input: Annotated[
        str,
        typer.Option("--input", metavar="uint8|float32", help="What the network takes: levels 0..255, or 0..1."),
    ] = "uint8",
    json: JsonOption = None,
) -> None:
    """Write a checkpoint for other programs, and prove that the file gives the same answers.

    imgcls export --ckpt best.pt --format onnx --data dataset/
    """
    if json is not None and json != "-":
        check_result(json, "--json", data=data, kept=[ckpt, *([output] if output else [])], kind="JSON")
    from imgcls.cli.progress import Progress
    from imgcls.exporters.export import export as run

    done = run(ckpt, format, output=output, data=data, input=input, report=Progress())
    say = talk if json == "-" else print
    say(f"{done.path}: {done.format}, {done.bytes / 2**20:.1f} MiB, {done.input} images")
    if done.format == "safetensors":
        say(f"{done.path}.json: class names and preprocessing, as in the file's header")
    hint = "" if data else "; --data compares your own"
    images, sizes = counted(done.images, "image"), ", ".join(map(str, done.batch_sizes))
    say(
        f"agrees with the checkpoint on {images} ({done.compared}{hint}) at batch sizes {sizes}: "
        f"largest difference {done.probability_difference:.2g} in probability"
    )
    if json is not None:
        write_json(asdict(done), json)
