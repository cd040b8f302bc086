"""The epochs' numbers as TensorBoard event files; the one place that knows the `tensorboard` extra."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Protocol

from imgcls.errors import missing_extra
from imgcls.files import explained


class EpochWriter(Protocol):
    """Receives the metrics of each epoch."""

    def write(self, metrics: dict[str, Any]) -> None:
        """Take one line of metrics.jsonl."""

    def close(self) -> None:
        """Write what is pending."""


class NoWriter:
    """Used without `--tensorboard`."""

    def write(self, metrics: dict[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TensorBoardWriter:
    """Writes into the folder `tensorboard` of a run; `first_epoch` hides what an interrupted run wrote later."""

    def __init__(self, run: Path, first_epoch: int) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run / "tensorboard"
        with explained(self._folder):
            self._writer: Any = SummaryWriter(str(self._folder), purge_step=first_epoch)

    def write(self, metrics: dict[str, Any]) -> None:
        """Write every number of an epoch as a scalar, train and val of a kind beside each other.

        Raises:
            WriteError: the disk refuses the event file.
        """
        with explained(self._folder):
            for name, value in metrics.items():
                if name != "epoch" and value is not None:
                    split, _, kind = name.partition("_")
                    tag = f"{kind}/{split}" if split in ("train", "val") else name
                    self._writer.add_scalar(tag, value, metrics["epoch"])
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        with contextlib.suppress(OSError):  # nothing is pending after `write`, which would have said so
            self._writer.close()


def require_tensorboard() -> None:
    """Raise the one-line error when the extra is not installed.

    Raises:
        UsageError: with the line that installs it.
    """
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("tensorboard", "tensorboard") from error
