"""Draws a training run's events on stderr: tqdm bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from typing import Any

from imgcls import signals
from imgcls.cli.console import Console, columns_of
from imgcls.cli.text import percent
from imgcls.events import EpochEnded, Event, Found, Said, Started, Stepped

LINE_SECONDS = 30.0  # between progress lines when there is no terminal
BAR_FORMAT = "{desc} |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"  # tqdm's own leaves no room in 80 columns


class Progress:
    """A `Report` for the command line; holds the open bar."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console = console
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
            _header(event, self._console)
        elif isinstance(event, Found):
            self._console.finding(event.finding)
        elif isinstance(event, Said):
            (self._console.warn if event.warning else self._console.talk)(event.text)
        elif isinstance(event, EpochEnded):
            for line in epoch_lines(event, columns_of(sys.stderr)):
                self._console.talk(line)

    def close(self) -> None:
        """Remove the open bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._phase = None, None

    def _step(self, event: Stepped) -> None:
        if not sys.stderr.isatty():
            if time.monotonic() - self._last_line > LINE_SECONDS:
                self._last_line = time.monotonic()
                loss = "" if event.loss is None else f"  loss {_loss(event.loss)}"
                rate = _rate(event.images_per_second)
                self._console.talk(f"  {_name(event)} batch {event.batch}/{event.batches}{loss}  {rate}")
            return
        if self._phase != (event.epoch, event.phase):
            from tqdm import tqdm

            self.close()
            self._phase = (event.epoch, event.phase)
            self._bar = tqdm(
                total=event.batches,
                desc=_name(event),
                leave=False,
                dynamic_ncols=True,
                bar_format=BAR_FORMAT,
                mininterval=0,  # `REPORT_SECONDS` says how often
            )
        loss = "" if event.loss is None else f"loss {_loss(event.loss)}, "
        self._bar.set_postfix_str(f"{loss}{_rate(event.images_per_second)}", refresh=False)
        self._bar.update(event.batch - self._bar.n)


def epoch_lines(event: EpochEnded, columns: int | None = None) -> list[str]:
    """Return what is said of an epoch: one line, or two where a terminal is too narrow for one.

    The numbers keep their widths, so that those of all epochs stand under each other.
    """
    row = event.metrics
    lr = f"{row['lr']:.3g}"
    measured = [
        f"epoch {row['epoch']:>{len(str(event.epochs))}}/{event.epochs}",
        f"train loss {_loss(row['train_loss'])}" + _accuracy(row["train_acc"]),
        *([] if row["val_loss"] is None else [f"val loss {_loss(row['val_loss'])}" + _accuracy(row["val_acc"])]),
    ]
    rest = [
        f"lr {lr:>8}",
        f"{_rate(row['images_per_second']):>14}",
        f"waiting {percent(row['data_wait']):>7}",
        *(["from scratch!"] if event.weights_missing else []),
    ]
    best = ["best"] if event.best else []
    widest = len("  ".join([*measured, *rest, "best"]))
    if columns is None or widest <= columns:
        return ["  ".join([*measured, *rest, *best])]
    return ["  ".join([*measured, *best]), " " * (len(measured[0]) + 2) + "  ".join(rest)]


def _loss(loss: float) -> str:
    """Format a loss in six places; only a diverging one needs more."""
    return f"{loss:.4f}" if abs(loss) < 10 else f"{loss:>6.5g}"


def _rate(images_per_second: float) -> str:
    """Format a speed; a slow one with a decimal."""
    return f"{images_per_second:.{0 if images_per_second >= 10 else 1}f} images/s"


def _accuracy(share: float | None) -> str:
    return "" if share is None else f" acc {percent(share):>7}"


def _name(event: Stepped) -> str:
    return f"epoch {event.epoch} {event.phase}" if event.epoch else event.phase


def _header(event: Started, console: Console) -> None:
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
    console.talk_facts(rows, 13)
    if event.first_epoch > 1 or event.steps_done:
        after = f", after its step {event.steps_done}" if event.steps_done else ""
        console.talk(f"resuming at epoch {event.first_epoch} of {event.epochs}{after}")
