"""Whether a run may be continued with these settings and this data, and what has become of its best.pt."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgcls import checkpoint
from imgcls.checkpoint import Checkpoint
from imgcls.config import TrainConfig
from imgcls.data import draws
from imgcls.data.augment.recipe import Augmentation
from imgcls.distributed import World
from imgcls.engine.decide.inputs import Inputs
from imgcls.engine.run import folder
from imgcls.engine.run.history import Row, best_epoch, is_best, is_over
from imgcls.errors import CheckpointError, DataError, UsageError
from imgcls.schema import ModelCard
from imgcls.settings import to_dict

# Settings that may differ, because they change no more than rounding; the data is held against its fingerprint.
HARMLESS = (
    *("data", "workers", "device", "cache", "compile", "channels_last"),
    *("out", "resume", "overwrite", "tensorboard", "early_stop", "epochs", "time_limit", "save_every"),
)


FIRST_DRAWS = {"version": 1, "from_epoch": 1}  # of checkpoints that do not say


@dataclass(frozen=True)
class Earlier:
    """What a run left that is to be continued.

    Attributes:
        last: its newest whole checkpoint.
        damage: why it is not the newest one; None: it is.
        best: describes best.pt, or the last epoch where that takes its place; None: there is none, and none to make.
        makes_best: whether best.pt is to be made from `last`: it is missing, damaged, or not yet of this epoch.
        lost: what is wrong with best.pt; None: nothing.
    """

    last: Checkpoint
    damage: str | None
    best: ModelCard | None
    makes_best: bool
    lost: str | None

    @property
    def history(self) -> list[Row]:
        """Its epochs so far."""
        rows: list[Row] = self.last.training["history"]
        return rows

    @property
    def within(self) -> dict[str, Any] | None:
        """What its epoch had come to; None: it is between two epochs."""
        return _within(self.last)

    @property
    def best_epoch(self) -> int:
        """Which epoch best.pt holds; 0: none."""
        return self.best.epoch if self.best else 0


def find(config: TrainConfig) -> Earlier | None:
    """Return what a run left that `--resume` continues; None: there is nothing yet, or it was not asked for.

    Raises:
        CheckpointError: its checkpoints are damaged, or best.pt is of another run.
    """
    if not config.resume or config.out is None:
        return None
    last, damage = folder.load_last(Path(config.out))
    if last is None:
        return None
    history = last.training["history"]
    best, lost = kept(Path(config.out), last.card, history)
    if _within(last):  # best.pt, if there has been an epoch, was saved before; nothing but epochs can replace it
        return Earlier(last, damage, best, False, lost if history else None)
    makes_best = not stands(best, history, config.monitor)
    return Earlier(last, damage, last.card if makes_best or best is None else best, makes_best, lost)


def warnings(config: TrainConfig, earlier: Earlier, inputs: Inputs, world: World) -> list[str]:
    """Return what to say of a run before it goes on.

    Raises:
        UsageError, DataError: it cannot go on so: see `check`.
    """
    check(config, earlier.last, inputs, world)
    said, epochs = [], _settings(earlier.last.card)["epochs"]
    if not is_over(config, earlier.history):
        if epochs != config.epochs:
            change = f"--epochs was {epochs}, now {config.epochs}"
            said.append(f"{change}: the learning rate follows the new length from here")
        if (version := other_draws(earlier.last.card, inputs.augmentation)) is not None:
            draws_differ = f"was begun with other draws of augmentation (version {version}, now {draws.VERSION})"
            said.append(
                f"--resume --out {config.out}: the run {draws_differ}; its coming epochs draw anew, so it ends with "
                "other weights than an uninterrupted run"
            )
    if earlier.lost:
        said.append(loss_of_best(earlier.lost, earlier.history, config.monitor, earlier.makes_best))
    return said


def check(config: TrainConfig, last: Checkpoint, inputs: Inputs, world: World) -> None:
    """Hold the settings, the data and the number of processes against those of the run that is continued.

    Raises:
        UsageError: settings that change what is learnt differ; they are listed.
        DataError: the classes or images differ.
    """
    splits, augmentation = inputs.splits, inputs.augmentation
    resumed, before, now = f"--resume --out {config.out}", _settings(last.card), to_dict(config)
    differing = [key for key in now if key not in HARMLESS and before[key] != now[key]]
    if differing:
        listed = ", ".join(f"{key} was {before[key]}, now {now[key]}" for key in differing)
        raise UsageError(f"{resumed}: other settings than the run's ({listed}); give its own, or another --out")
    if last.card.classes != splits.classes:
        raise DataError(f"{resumed}: the run's classes were {', '.join(last.card.classes)}; give its own --data")
    known = len(last.holdout_content) > 0
    changed = known and not np.array_equal(last.holdout_content, splits.holdout_content)
    recorded, found = last.card.data_fingerprint, splits.fingerprint
    if "." not in recorded:  # of an older version, which hashed no labels
        found = re.sub(r"\.\w+", "", found)
    if changed or recorded != found:
        problem = "images were added, removed or changed since, or their labels"
        raise DataError(f"{resumed}: {problem}; put them back, or start anew with another --out")
    if is_over(config, last.training["history"]):
        return
    if (processes := last.training["processes"]) != world.size:
        raise UsageError(f"{resumed}: the run has {processes} processes, not {world.size}; start it as before")
    if _within(last) and other_draws(last.card, augmentation) is not None:
        problem = f"stopped in the middle of an epoch of imgcls {last.card.imgcls_version}, which draws otherwise"
        raise UsageError(f"{resumed}: {problem}; go on with that version until the epoch ends")
    if before["epochs"] != config.epochs and config.schedule == "onecycle":
        raise UsageError(f"--epochs {config.epochs}: a onecycle run of {before['epochs']} epochs cannot change length")


def other_draws(last: ModelCard, augmentation: Augmentation) -> int | None:
    """Return the version of the draws of a run's last epoch; None when today's are the same, or nothing is drawn.

    With another version the run may go on from the start of an epoch, and ends with other weights than it would have.
    An epoch that was begun with another version can only be begun anew: neither gives both its first images and its
    last.
    """
    version: int = (last.run.get("draws") or [FIRST_DRAWS])[-1]["version"]
    return version if version != draws.VERSION and augmentation.is_random else None


def versions_of_draws(last: ModelCard | None) -> list[dict[str, int]]:
    """Return what a checkpoint says of its draws: each version with the epoch since which it is used.

    Args:
        last: of the run that is resumed, whose coming epochs are made with today's; None: a new run.
    """
    before = (last.run.get("draws") or [FIRST_DRAWS]) if last else []
    if before and before[-1]["version"] == draws.VERSION:
        return before
    return [*before, {"version": draws.VERSION, "from_epoch": last.epoch + 1 if last else 1}]


def kept(path: Path, last: ModelCard, history: Sequence[Row]) -> tuple[ModelCard | None, str | None]:
    """Look at what stands in the place of a run's best.pt.

    Args:
        path: the run folder.
        last: describes the run, as in its last.pt.
        history: its epochs so far.

    Returns:
        The card of best.pt, or None and what is wrong: it is missing or damaged.

    Raises:
        CheckpointError: it is something else, a checkpoint of another run for example, and not ours to replace.
    """
    best, advice = path / "best.pt", "move it away and repeat the line"
    if not os.path.isfile(best):
        if os.path.lexists(best):
            raise CheckpointError(f"{best}: is no regular file; {advice}")
        return None, f"{best}: is missing"
    try:
        card = checkpoint.load(best).card
    except CheckpointError as error:
        return None, f"{str(error).partition('; ')[0]}, now best.damaged.pt"
    # One epoch ahead of a last.pt that was damaged: that epoch is about to be repeated.
    row = history[card.epoch - 1] if 0 < card.epoch <= len(history) else None
    figures = card.metrics.get("accuracy"), card.metrics.get("loss")
    is_known = card.epoch == len(history) + 1 if row is None else figures == (row["val_acc"], row["val_loss"])
    if _run(card) != _run(last) or not is_known:
        raise CheckpointError(f"{best}: is of another run than last.pt; {advice}")
    return card, None


def stands(best: ModelCard | None, history: Sequence[Row], monitor: str) -> bool:
    """Tell whether best.pt is there and not worse than the last epoch, of which last.pt could make another."""
    if best is None:
        return False
    return best.epoch >= len(history) or not is_best(history[-1], [history[best.epoch - 1]], monitor)


def loss_of_best(problem: str, history: Sequence[Row], monitor: str, is_made: bool = True) -> str:
    """Say what takes the place of a best.pt that is missing or damaged; `is_made`: it can be made from last.pt."""
    last, best = len(history), best_epoch(history, monitor)
    if not is_made:
        return f"{problem}; the best, epoch {best}, is lost: the next takes its place until a later one is better"
    if best == last:
        return f"{problem}; the best, epoch {best}, is the last: it is made anew from last.pt"
    return f"{problem}; the best, epoch {best}, is lost: the last, {last}, takes its place until a later one is better"


def _within(last: Checkpoint) -> dict[str, Any] | None:
    within: dict[str, Any] | None = last.training.get("within")
    return within


def _settings(card: ModelCard) -> dict[str, Any]:
    """Return the settings of a run; those younger than it had their defaults."""
    return to_dict(TrainConfig()) | card.config


def _run(card: ModelCard) -> tuple[Any, ...]:
    """Return what checkpoints of one run have in common."""
    fixed = {name: value for name, value in _settings(card).items() if name not in HARMLESS}
    return card.arch, card.classes, card.data_fingerprint, fixed
