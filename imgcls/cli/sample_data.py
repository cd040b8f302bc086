"""`imgcls sample-data`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sample_data)


def sample_data(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Another seed, other pictures.")] = 0,
) -> None:
    """Draw a small data set of coloured shapes, to try every command at once and offline.

    imgcls sample-data dataset/
    """
    from imgcls.data.sample import draw

    counts = draw(folder, seed)
    for split, count in counts.items():
        print(f"{folder.rstrip('/')}/{split}: {count} images")
    print(f"next: imgcls train --data {shlex.quote(folder)} --arch resnet18 --epochs 5")
