"""Whether a run may be continued with these settings and this data."""

from __future__ import annotations

from imgcls.checkpoint import Checkpoint
from imgcls.config import TrainConfig, to_dict
from imgcls.distributed import World
from imgcls.engine.monitor import is_over
from imgcls.engine.prepare import Prepared
from imgcls.errors import DataError, UsageError

# Settings that may differ, because they change no more than rounding; the data is held against its fingerprint.
HARMLESS = (
    *("data", "workers", "device", "cache", "compile", "channels_last"),
    *("out", "resume", "overwrite", "tensorboard", "early_stop", "epochs"),
)


def check(config: TrainConfig, last: Checkpoint, prepared: Prepared, world: World) -> str | None:
    """Hold the settings, the data and the number of processes against those of the run that is continued.

    Returns:
        A warning for the user, or None.

    Raises:
        UsageError: settings that change what is learnt differ; they are listed.
        DataError: the classes or images differ.
    """
    resumed, before, now = f"--resume --out {config.out}", last.card.config, to_dict(config)
    before = to_dict(TrainConfig()) | before  # settings younger than the run had their defaults
    differing = [key for key in now if key not in HARMLESS and before[key] != now[key]]
    if differing:
        listed = ", ".join(f"{key} was {before[key]}, now {now[key]}" for key in differing)
        raise UsageError(f"{resumed}: other settings than the run's ({listed}); give its own, or another --out")
    if last.card.classes != prepared.splits.classes:
        raise DataError(f"{resumed}: the run's classes were {', '.join(last.card.classes)}; give its own --data")
    if last.card.data_fingerprint != prepared.splits.fingerprint:
        raise DataError(f"{resumed}: images were added, removed or changed since; give its own --data")
    if is_over(config, last.training["history"]):
        return None
    if (processes := last.training["processes"]) != world.size:
        raise UsageError(f"{resumed}: the run has {processes} processes, not {world.size}; start it as before")
    if before["epochs"] == config.epochs:
        return None
    if config.schedule == "onecycle":
        raise UsageError(f"--epochs {config.epochs}: a onecycle run of {before['epochs']} epochs cannot change length")
    return f"--epochs was {before['epochs']}, now {config.epochs}: the learning rate follows the new length from here"
