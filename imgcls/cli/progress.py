"""Draws a training run's events on stderr: tqdm bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from typing import Any

from imgcls.cli import signals
from imgcls.cli.output import percent, show_finding, talk, warn
from imgcls.events import EpochEnded, Event, Found, Said, Started, Stepped

LINE_SECONDS = 30.0  # between progress lines when there is no terminal


class Progress:
    """A `Report` for the command line; holds the open bar."""

    def __init__(self, quiet: bool = False) -> None:
        self.out: str | None = None  # the run folder, once there is one
        self._quiet = quiet  # other ranks than the first
        self._bar: Any = None
        self._phase: tuple[int, str] | None = None
        self._last_line = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        signals.check()
        if self._quiet:
            return
        if isinstance(event, Stepped):
            self._step(event)
            return
        self.close()
        if isinstance(event, Started):
            self.out = event.out
            _header(event)
        elif isinstance(event, Found):
            show_finding(event.finding)
        elif isinstance(event, Said):
            (warn if event.warning else talk)(event.text)
        elif isinstance(event, EpochEnded):
            talk(epoch_line(event))

    def close(self) -> None:
        """Remove the open bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._phase = None, None

    def _step(self, event: Stepped) -> None:
        if not sys.stderr.isatty():
            if time.monotonic() - self._last_line > LINE_SECONDS:
                self._last_line = time.monotonic()
                loss = "" if event.loss is None else f"  loss {event.loss:.4f}"
                rate = f"{event.images_per_second:.0f} images/s"
                talk(f"  {_name(event)} batch {event.batch}/{event.batches}{loss}  {rate}")
            return
        if self._phase != (event.epoch, event.phase):
            from tqdm import tqdm

            self.close()
            self._phase = (event.epoch, event.phase)
            self._bar = tqdm(total=event.batches, desc=_name(event), unit="batch", leave=False, dynamic_ncols=True)
        self._bar.set_postfix_str(
            f"{'' if event.loss is None else f'loss {event.loss:.4f}, '}{event.images_per_second:.0f} images/s"
        )
        self._bar.update(event.batch - self._bar.n)


def epoch_line(event: EpochEnded) -> str:
    """Return the one line of an epoch."""
    row = event.metrics
    parts = [
        f"epoch {row['epoch']}/{event.epochs}",
        f"train loss {row['train_loss']:.4f}" + _accuracy(row["train_acc"]),
        *([] if row["val_loss"] is None else [f"val loss {row['val_loss']:.4f}" + _accuracy(row["val_acc"])]),
        f"lr {row['lr']:.3g}",
        f"{row['images_per_second']:.0f} images/s",
        f"waiting {row['data_wait']:.0%}",
        *(["from scratch!"] if event.weights_missing else []),
        *(["best"] if event.best else []),
    ]
    return "  ".join(parts)


def _accuracy(share: float | None) -> str:
    return "" if share is None else f" acc {percent(share)}"


def _name(event: Stepped) -> str:
    return f"epoch {event.epoch} {event.phase}" if event.epoch else event.phase


def _header(event: Started) -> None:
    card = event.card
    images = ", ".join([f"train {event.images['train']}", *([event.validation] if event.validation else [])])
    trainable = "all trainable" if event.trainable == event.parameters else f"{event.trainable:,} trainable"
    shown = ", ".join(card.classes[:8]) + (", …" if len(card.classes) > 8 else "")
    rows = [
        ("device", f"{event.device.value} ({event.device.reason})"),
        ("network", f"{card.arch}, {event.parameters:,} parameters, {trainable}"),
        ("images", f"{event.source}: {images}; {len(card.classes)} classes: {shown}"),
        ("pixels", str(card.preprocess)),
        ("recipe", event.recipe),
        *((choice.name, f"{choice.shown} ({choice.reason})") for choice in event.choices),
        ("files", event.out or "none: dry run"),
    ]
    for name, text in rows:
        talk(f"{name:<13}{text}")
    if event.first_epoch > 1:
        talk(f"resuming at epoch {event.first_epoch} of {event.epochs}")
