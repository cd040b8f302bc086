"""`imgcls info`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgcls.cli.console import Console
from imgcls.cli.options import JsonOption
from imgcls.cli.text import interval, number, percent
from imgcls.errors import counted
from imgcls.paths import check_model
from imgcls.registry import BACKENDS

if TYPE_CHECKING:
    from imgcls.schema import ModelCard


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(info)


def info(
    ckpt: Annotated[
        str, typer.Argument(metavar="FILE", help="Checkpoint of imgcls train, or exported .onnx.")
    ] = "best.pt",
    json: JsonOption = None,
) -> None:
    """Show what a checkpoint holds.

    imgcls info best.pt
    """
    console = Console(json)
    console.check_json(kept=[ckpt])
    check_model(ckpt)
    card, values, training = _read(ckpt)
    within = training.get("within")
    epoch = f"{card.epoch}, and {counted(within['steps'], 'step')} of the next" if within else str(card.epoch)
    metrics = card.metrics
    validation = "none"
    if metrics:
        kind = "held-out image" if metrics["held_out"] else "image"
        accuracy = f"{percent(metrics['accuracy'])} ({interval(metrics['accuracy_interval'])})"
        validation = f"{accuracy} on {counted(metrics['images'], kind)}, loss {metrics['loss']:.4f}"
    options = ", ".join(f"{name} {value}" for name, value in card.arch_options.items() if value is not None)
    decided = "; ".join(f"{name} {number(value)}" for name, value in card.run.get("resolved", {}).items())
    rows = {
        "architecture": f"{card.arch} ({options})" + ("" if values is None else f", {values:,} values"),
        "classes": f"{len(card.classes)}: {', '.join(card.classes)}",
        "preprocessing": str(card.preprocess),
        "epoch": epoch,
        "validation": validation,
        "weights from": f"{card.pretrained.used or 'scratch'} ({card.pretrained.reason})",
        "data": f"{card.config.get('data')}, fingerprint {card.data_fingerprint}",
        "settings": shlex.join(f"{name}={value}" for name, value in card.config.items()),
        **({"decided": decided} if decided else {}),
        "command line": shlex.join(str(word) for word in card.run.get("command_line", [])),
        **({"resumed by": shlex.join(map(str, resumed))} if (resumed := card.run.get("resumed_by")) else {}),
        "written by": ", ".join(f"{name} {version}" for name, version in card.run.get("versions", {}).items()),
        "resumable": "yes" if training else "no",
    }
    console.facts(rows.items(), 15)
    console.write_json(card.to_dict() | {"values": values, "resumable": bool(training)})


def _read(path: str) -> tuple[ModelCard, int | None, dict[str, Any]]:
    """Return the card, how many values the network has (None: not known), and what training needs to go on, if any."""
    from imgcls.inference import model

    if model.backend(path) != BACKENDS[""]:
        return model.load(path, few=True).card, None, {}
    from imgcls.checkpoint import load

    loaded = load(path)
    return loaded.card, sum(tensor.numel() for tensor in loaded.model.values()), loaded.training
