"""What a run writes, and when: checkpoints, metrics and its end. A process that writes nothing has a `NoSaver`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from imgcls import checkpoint, files
from imgcls.checkpoint import Checkpoint
from imgcls.config import TrainConfig
from imgcls.engine.decide.decided import choices
from imgcls.engine.learn.learner import Learner
from imgcls.engine.run import diagnosis, folder, resume
from imgcls.engine.run.history import Row, ending
from imgcls.engine.run.resume import Earlier
from imgcls.engine.run.run import Run
from imgcls.engine.run.tensorboard import EpochWriter, NoWriter, TensorBoardWriter
from imgcls.errors import CheckpointError, DivergedError, ImgclsError, Interrupted, ResourceError, TimeLimitError
from imgcls.events import Report, Said
from imgcls.paths import DEFAULT_PARENT
from imgcls.report import EvalReport
from imgcls.schema import FORMAT, WITHIN_EPOCH, ModelCard


@dataclass(frozen=True)
class Left:
    """What a run that ended leaves behind.

    Attributes:
        card: of the best checkpoint.
        out: the run folder; None: nothing was written.
        linked: what points at the best checkpoint in the working folder, if anything.
    """

    card: ModelCard
    out: Path | None = None
    linked: str | None = None


class NoSaver:
    """Of a process that writes nothing: a dry run, or another than the first."""

    out: str | None = None  # the run folder of the first process

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> NoSaver:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Say in the place of the first process why the run failed, if that one is gone."""
        if isinstance(error, ResourceError) and self.out is not None:
            with suppress(ImgclsError):
                folder.tell(Path(self.out), **_status(error))

    def begin(self, earlier: Earlier | None) -> None:
        """Do nothing."""

    def save(self, learner: Learner, history: Sequence[Row], validated: EvalReport | None, best: bool) -> None:
        """Do nothing but refuse weights that the first process refuses too."""
        check_finite(self._run, learner)

    def save_within(self, learner: Learner, history: Sequence[Row], within: dict[str, Any]) -> None:
        """Do the same."""
        check_finite(self._run, learner)

    def end(self, history: Sequence[Row], report: Report) -> Left:
        """Return what the run is, without metrics."""
        return Left(self._run.card)


class Saver:
    """Writes into the run folder, which is made, or taken over, and locked until the block ends."""

    def __init__(self, run: Run) -> None:
        """Open the folder.

        Raises:
            WriteError: it cannot be written, or another process trains in it.
        """
        self._run = run
        self._folder = folder.create(run.config)
        self._writer: EpochWriter = NoWriter()
        self.out: str | None = str(self._folder.path)

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        with closing(self._folder):
            if error is not None:
                with suppress(ImgclsError):  # a full disk may refuse this too; what is said is why the run failed
                    self._folder.set_status(**_status(error))
            self._writer.close()

    def begin(self, earlier: Earlier | None) -> None:
        """Write config.json, and mend what an interrupted run left."""
        run = self._run
        if earlier and earlier.damage:
            self._folder.use_spare()
        self._folder.write_config(run.config, tuple(choices(run.decided)), run.card.data_fingerprint, "running")
        if earlier:
            self._folder.mend_best(earlier.last, lost=earlier.lost is not None, make=earlier.makes_best)
        if run.config.tensorboard:
            self._writer = TensorBoardWriter(self._folder.path, len(earlier.history) + 1 if earlier else 1)

    def save(self, learner: Learner, history: Sequence[Row], validated: EvalReport | None, best: bool) -> None:
        """Write last.pt, best.pt and metrics.jsonl; what a kill in between leaves undone, `--resume` does.

        Args:
            learner: its weights and optimizer.
            history: the epochs up to this one.
            validated: what was measured in it, if anything.
            best: whether best.pt is to hold it.

        Raises:
            DivergedError: the weights are no numbers.
            WriteError: the disk refuses a file.
        """
        metrics = {} if validated is None else _metrics(validated, held_out=len(self._run.inputs.splits.holdout) > 0)
        saved = self._save_last(learner, history, metrics, None)
        if best:
            self._folder.save_best(replace(saved, training={}))
        self._folder.write_metrics(history)
        self._writer.write(history[-1])

    def save_within(self, learner: Learner, history: Sequence[Row], within: dict[str, Any]) -> None:
        """Write last.pt in the middle of an epoch, or before it was validated.

        Args:
            learner: its weights and optimizer.
            history: the epochs before.
            within: what `Meter.state_dict` says of this one.

        Raises:
            DivergedError, WriteError: as `save`.
        """
        self._save_last(learner, history, {}, within)

    def _save_last(
        self, learner: Learner, history: Sequence[Row], metrics: dict[str, object], within: dict[str, Any] | None
    ) -> Checkpoint:
        check_finite(self._run, learner)
        splits, model = self._run.inputs.splits, learner.validated.network.state_dict()
        form = FORMAT if within is None else WITHIN_EPOCH
        card = replace(self._run.card, metrics=metrics, epoch=len(history), format=form)
        state = learner.state_dict() | {"history": list(history), "processes": self._run.world.size, "within": within}
        saved = Checkpoint(card, model, splits.holdout, state, splits.holdout_content)
        self._folder.save_last(saved)
        return saved

    def end(self, history: Sequence[Row], report: Report) -> Left:
        """Draw the curves, point ./best.pt at the run's best, and record how it ended.

        Raises:
            CheckpointError: best.pt and last.pt were both removed while the run went on.
            WriteError: the disk refuses a file.
        """
        card, path = self._best(history, report), self._folder.path
        return Left(card, path, _end(self._run.config, self._folder, history, report))

    def _best(self, history: Sequence[Row], report: Report) -> ModelCard:
        """Return the card of best.pt, which may have been moved away while the run went on."""
        path, monitor = self._folder.path, self._run.config.monitor
        card, lost = resume.kept(path, self._run.card, history)
        if card is not None:
            return card
        last, _ = folder.load_last(path)
        if last is None:
            raise CheckpointError(f"{lost}, as is last.pt: somebody removed them while the run went on; start it again")
        report(Said(resume.loss_of_best(str(lost), history, monitor), warning=True))
        self._folder.mend_best(last, lost=True, make=True)
        return last.card


def conclude(config: TrainConfig, earlier: Earlier, report: Report) -> Left:
    """Do what is left of a run whose epochs are done: nothing, or its end, or its best.pt."""
    path, linked = Path(str(config.out)), None
    if earlier.best is None:
        problem = "and last.pt is in the middle of an epoch: a larger --epochs continues it"
        raise CheckpointError(f"{earlier.lost}, {problem}")
    ended = folder.read_config(path)["run"]["status"] == "finished"
    if not ended or earlier.makes_best:
        with closing(folder.create(config)) as opened:
            opened.mend_best(earlier.last, lost=earlier.lost is not None, make=earlier.makes_best)
            if not ended:
                linked = _end(config, opened, earlier.history, report)
    return Left(earlier.best, path, linked)


def check_finite(run: Run, learner: Learner) -> None:
    """Refuse to save weights that are no numbers.

    Raises:
        DivergedError: naming the first tensor, and what to do.
    """
    for network in (learner.model.network, learner.validated.network):
        try:
            checkpoint.check_finite(network.state_dict(), "weights")
        except CheckpointError as error:
            problem, lower = str(error).partition("; ")[0], diagnosis.lower_lr(run.config, run.schedule.peak)
            raise DivergedError(f"{problem}; not saved; {lower} or set --clip-grad 1") from error


def _metrics(validated: EvalReport, held_out: bool) -> dict[str, object]:
    return {
        "split": "val",
        "held_out": held_out,
        "images": validated.images,
        "accuracy": validated.accuracy,
        "accuracy_interval": list(validated.accuracy_interval),
        "loss": validated.loss,
        "macro_f1": validated.macro_f1,
    }


def _end(config: TrainConfig, opened: folder.RunFolder, history: Sequence[Row], report: Report) -> str | None:
    opened.finish(history, config.monitor)
    linked = _link(config, opened, report)
    opened.set_status(status="finished", ended=ending(config, history))
    return linked


def _link(config: TrainConfig, opened: folder.RunFolder, report: Report) -> str | None:
    """Point ./best.pt at the run's best checkpoint, when it was started here without a folder and a limit."""
    if config.limit is not None or not opened.is_here_by_default():
        return None
    link = Path("best.pt")
    if files.point(link, Path(DEFAULT_PARENT) / opened.path.name / "best.pt"):
        return str(link)
    report(Said("best.pt here is a file of its own and was left alone", warning=True))
    return None


def _status(error: BaseException) -> dict[str, Any]:
    """Return what config.json says of a run that an error ended."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return {"status": "interrupted"}
    if isinstance(error, TimeLimitError):
        return {"status": "time limit"}
    if isinstance(error, DivergedError):
        return {"status": "diverged", "step": error.step, "images": list(error.images)}
    return {"status": f"failed: {error if isinstance(error, ImgclsError) else type(error).__name__}"}
