"""`imgcls sample-data`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from imgcls.cli.console import Console
from imgcls.cli.options import Given, with_settings
from imgcls.config import SampleConfig
from imgcls.settings import from_dict


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sample_data)


@with_settings(SampleConfig)
def sample_data(
    given: Given,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new or empty folder.")],
) -> None:
    """Draw a small data set of coloured shapes, to try every command at once and offline.

    imgcls sample-data dataset/
    """
    config, console = from_dict(SampleConfig, given), Console()
    from imgcls.data.sample import draw

    counts = draw(folder, config.seed)
    for split, count in counts.items():
        console.say(f"{folder.rstrip('/')}/{split}: {count} images")
    console.say(f"next: imgcls train --data {shlex.quote(folder)} --arch resnet18 --epochs 5")
