"""`imgcls inspect-batch`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from imgcls.cli.options import Given, JsonOption, with_settings
from imgcls.cli.output import show_facts, show_finding, show_table, talk, write_json
from imgcls.config import DataConfig, check_word, from_dict
from imgcls.files import check_result

SPLITS = ("train", "val")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect-batch")(inspect_batch)


@with_settings(DataConfig)
def inspect_batch(
    given: Given,
    split: Annotated[
        str, typer.Option("--split", metavar="|".join(SPLITS), help="Which images.", autocompletion=lambda: SPLITS)
    ] = "train",
    output: Annotated[
        str | None,
        typer.Option(
            "--output", metavar="FILE", show_default="none", help="Contact sheet: .png, .jpg, .webp, .pdf or .svg."
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Show one batch exactly as training would see it, and what is odd about the data.

    imgcls inspect-batch --data dataset/ --output grid.png
    """
    check_word("--split", split, SPLITS)
    config = from_dict(given)
    if output is not None:
        check_result(output, "--output", data=config.data, kind="picture")
    if json is not None and json != "-":
        check_result(json, "--json", data=config.data, kept=[output] if output else [], kind="JSON")
    from imgcls.engine.inspect import inspect

    inspection = inspect(config, split)
    _show(inspection.to_dict(), to_stderr=json == "-")
    for finding in inspection.findings:
        show_finding(finding)
    if output is not None:
        from imgcls import plots

        classes = list(inspection.values["class_to_idx"])
        plots.save(plots.contact_sheet(inspection.images, inspection.labels, classes), output)
        talk(f"contact sheet: {output}")
    if json is not None:
        write_json(inspection.to_dict(), json)


def _show(values: dict[str, Any], to_stderr: bool) -> None:
    images, labels, normalized = values["images"], values["labels"], values["normalized"]
    channels = (f"{name} {', '.join(f'{value:.3f}' for value in images[name])}" for name in ("mean", "std"))
    spread = f"{normalized['min']:.2f} to {normalized['max']:.2f}"
    first = ", ".join(f"{label} {name}" for label, name in labels["first"])
    facts = [
        ("images", f"{images['shape']} {images['dtype']}, levels {images['min']} to {images['max']}"),
        ("", f"per channel, of 0..1: {'; '.join(channels)}"),
        ("network", f"[B, 3, S, S] float32, {spread} after normalisation"),
        ("labels", f"{labels['shape']} {labels['dtype']}: {first}"),
        ("pixels", str(values["preprocessing"])),
        *(("", f"{choice['name']}: {choice['value']} ({choice['reason']})") for choice in values["decided"]),
    ]
    show_facts(facts, 8, to_stderr)
    splits = list(values["counts"])
    rows = [
        [name, str(index), *(str(values["counts"][split][name]) for split in splits)]
        for name, index in values["class_to_idx"].items()
    ]
    show_table("class_to_idx and images", ["class", "index", *splits], rows, to_stderr)
