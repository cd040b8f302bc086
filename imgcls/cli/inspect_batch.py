"""`imgcls inspect-batch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from imgcls.cli.console import Console
from imgcls.cli.options import Given, JsonOption, with_settings
from imgcls.config import InspectConfig
from imgcls.settings import from_dict

if TYPE_CHECKING:
    from imgcls.engine.inspect import Inspection


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect-batch")(inspect_batch)


@with_settings(InspectConfig)
def inspect_batch(given: Given, json: JsonOption = None) -> None:
    """Show one batch exactly as training would see it, and what is odd about the data.

    imgcls inspect-batch --data dataset/ --output grid.png
    """
    config, console = from_dict(InspectConfig, given), Console(json)
    console.check_json(config.data, [config.output])
    config.check_paths()
    from imgcls.data.splits import check_classes

    check_classes(config.data)
    from imgcls.engine.inspect import inspect

    inspection = inspect(config)
    _show(inspection.to_dict(), console)
    for finding in inspection.findings:
        console.finding(finding)
    if config.output is not None:
        _draw(inspection, config.output)
        console.talk(f"contact sheet: {config.output}")
    console.write_json(inspection.to_dict())


def _draw(inspection: Inspection, output: str) -> None:
    from imgcls import plots

    classes = list(inspection.values["class_to_idx"])
    plots.save(plots.contact_sheet(inspection.images, inspection.labels, classes), output)


def _show(values: dict[str, Any], console: Console) -> None:
    images, labels, normalized = values["images"], values["labels"], values["normalized"]
    channels = (f"{name} {', '.join(f'{value:.3f}' for value in images[name])}" for name in ("mean", "std"))
    limits = f"{normalized['min']:.2f} to {normalized['max']:.2f}"
    first = ", ".join(f"{label} {name}" for label, name in labels["first"])
    facts = [
        ("images", f"{images['shape']} {images['dtype']}, levels {images['min']} to {images['max']}"),
        ("", f"per channel, of 0..1: {'; '.join(channels)}"),
        ("network", f"[B, 3, S, S] float32, {limits} after normalisation"),
        ("labels", f"{labels['shape']} {labels['dtype']}: {first}"),
        ("pixels", str(values["preprocessing"])),
        *(("", f"{choice['name']}: {choice['value']} ({choice['reason']})") for choice in values["decided"]),
    ]
    console.facts(facts, 8)
    splits = list(values["counts"])
    rows = [
        [name, str(index), *(str(values["counts"][split][name]) for split in splits)]
        for name, index in values["class_to_idx"].items()
    ]
    console.table("class_to_idx and images", ["class", "index", *splits], rows)
