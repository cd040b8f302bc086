"""`imgcls info`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from imgcls.cli.options import JsonOption
from imgcls.cli.output import interval, percent, printable, talk, write_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(info)


def info(
    ckpt: Annotated[str, typer.Argument(metavar="FILE", help="Checkpoint of imgcls train.")] = "best.pt",
    json: JsonOption = None,
) -> None:
    """Show what a checkpoint holds.

    imgcls info best.pt
    """
    from imgcls.checkpoint import load

    loaded = load(ckpt)
    card, metrics = loaded.card, loaded.card.metrics
    values = sum(tensor.numel() for tensor in loaded.model.values())
    validation = "none"
    if metrics:
        kind = "held-out images" if metrics["held_out"] else "images"
        accuracy = f"{percent(metrics['accuracy'])} ({interval(metrics['accuracy_interval'])})"
        validation = f"{accuracy} on {metrics['images']} {kind}, loss {metrics['loss']:.4f}"
    options = ", ".join(f"{name} {value}" for name, value in card.arch_options.items() if value is not None)
    rows = {
        "architecture": f"{card.arch} ({options}), {values:,} values",
        "classes": f"{len(card.classes)}: {', '.join(card.classes)}",
        "preprocessing": str(card.preprocess),
        "epoch": str(card.epoch),
        "validation": validation,
        "weights from": f"{card.pretrained.used or 'scratch'} ({card.pretrained.reason})",
        "data": f"{card.config.get('data')}, fingerprint {card.data_fingerprint}",
        "settings": shlex.join(f"{name}={value}" for name, value in card.config.items()),
        "command line": shlex.join(str(word) for word in card.run.get("command_line", [])),
        "written by": ", ".join(f"{name} {version}" for name, version in card.run.get("versions", {}).items()),
        "resumable": "yes" if loaded.training else "no",
    }
    for name, text in rows.items():
        (talk if json == "-" else print)(f"{name:<15}{printable(text)}")
    if json is not None:
        write_json(card.to_dict() | {"values": values, "resumable": bool(loaded.training)}, json)
