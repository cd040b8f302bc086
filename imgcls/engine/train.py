"""`train`: from a TrainConfig to a run folder with the best checkpoint, in the order it happens.

Reports events and returns a result; prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from imgcls import checkpoint, files
from imgcls.checkpoint import Checkpoint
from imgcls.config import TrainConfig
from imgcls.device import choose_amp, choose_device, fast_float32
from imgcls.distributed import World, joined, world_from_environment
from imgcls.engine.assess.evaluate import count, silent
from imgcls.engine.decide.data import prepare, validation_batches
from imgcls.engine.decide.plan import Plan, State, build
from imgcls.engine.learn.caching import cached
from imgcls.engine.learn.epoch import start_statistics, train_epoch
from imgcls.engine.learn.optimizers import plateau_drops
from imgcls.engine.run import diagnosis as diagnose
from imgcls.engine.run import folder as run_folder
from imgcls.engine.run import header as announce
from imgcls.engine.run import resume
from imgcls.engine.run.folder import RunFolder
from imgcls.engine.run.history import best_epoch, ending, is_best, is_over, score
from imgcls.engine.run.tensorboard import EpochWriter, NoWriter, TensorBoardWriter, require_tensorboard
from imgcls.errors import CheckpointError, DivergedError, ImgclsError, Interrupted, ResourceError, UsageError
from imgcls.events import EpochEnded, Finished, Found, Report, Said
from imgcls.schema import EvalReport, ModelCard

EARLY_BATCHES = 2  # validation batches before training, to fail early


def train(config: TrainConfig, report: Report = silent) -> Finished:
    """Train a classifier.

    Args:
        config: everything there is to say; what is None is decided and reported with its reason.
        report: receives the events of `imgcls.events`.

    Returns:
        The best checkpoint's card and where the files are.

    Raises:
        ImgclsError: an expected failure, with its exit code: see `imgcls.errors`.
    """
    if config.tensorboard:
        require_tensorboard()
    world = world_from_environment()
    device, _ = choose_device(config.device, world.local_rank)
    choose_amp(config.amp, device)  # refused before the data is listed
    run_folder.check(config)
    with joined(world, device):
        try:
            return _train(config, world, report)
        except RuntimeError as error:
            if config.compile and (problem := _compiling(error)):
                raise UsageError(f"--compile: torch cannot compile this here ({problem}); drop it") from error
            if "does not have a deterministic implementation" in str(error):
                raise UsageError(f"--deterministic: {config.arch} cannot on {device.type}; drop it") from error
            if not isinstance(error, torch.OutOfMemoryError):
                raise
            advice = f"lower --batch-size {config.batch_size} and raise --accumulate to match, or lower --size"
            advice += ", or type --cache off" if device.type == "cuda" and config.cache != "off" else ""
            raise ResourceError(f"out of memory on {device}: {advice}") from error


def _compiling(error: RuntimeError) -> str | None:
    """Return the reason when torch.compile failed and not what it compiled."""
    inside = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
    if not inside and "torch.compile" not in str(error):
        return None
    return next(iter(str(error).splitlines()), type(error).__name__)


def _train(config: TrainConfig, world: World, report: Report) -> Finished:
    began = time.monotonic()
    last, damage = run_folder.load_last(Path(config.out)) if config.resume and config.out else (None, None)
    if damage:
        report(Said(damage, warning=True))
    history = last.training["history"] if last else []
    kept, lost = resume.kept(Path(str(config.out)), last.card, history) if last else (None, None)
    prepared = prepare(
        config, last.card if last else None, last.holdout if last else None, world, lambda text: report(Said(text))
    )
    for finding in prepared.splits.findings:
        report(Found(finding))
    if last is not None:
        if warning := resume.check(config, last, prepared, world):
            report(Said(warning, warning=True))
        if lost:
            report(Said(_loss(lost, history, config.monitor), warning=True))
        from_last = not resume.stands(kept, history, config.monitor)
        kept = last.card if from_last or kept is None else kept
        if is_over(config, history):
            linked = _conclude(config, last, from_last, lost is not None, report) if world.is_main else None
            return _finished(config, kept, Path(str(config.out)), linked, history, 0, began, "already finished")
    state, plan, said = build(config, prepared, world, last)
    if said:
        report(Said(said))
    _try_validation(state, plan, EARLY_BATCHES)
    epochs_before = len(state.history)
    folder = run_folder.create(config) if world.is_main and not config.dry_run else None
    report(announce.started(state, plan, str(folder.path) if folder else None))
    for sentence in announce.advice(plan):
        report(sentence)
    if config.dry_run:
        return _dry_run(state, plan, report, began)
    if folder is None:  # a rank that writes nothing
        reason = _epochs(state, plan, kept, None, NoWriter(), report)
        return Finished(plan.card, None, None, None, len(state.history), time.monotonic() - began, reason)
    with closing(folder):
        writer: EpochWriter = NoWriter()
        try:
            if damage:
                folder.use_spare()
            folder.write_config(config, plan.choices, plan.card.data_fingerprint, "running")
            if last is not None and from_last:
                folder.replace_best(last, lost=lost is not None)
            if config.tensorboard:
                writer = TensorBoardWriter(folder.path, epochs_before + 1)
            reason = _epochs(state, plan, kept, folder, writer, report)
            best = _best(state, plan, folder, report)
            linked = _end(config, folder, state.history, report)
        except BaseException as error:
            with suppress(ImgclsError):  # a full disk may refuse this too; what is said is why the run failed
                folder.set_status(status=_status(error))
            raise
        finally:
            writer.close()
        epochs = len(state.history) - epochs_before
        return _finished(config, best, folder.path, linked, state.history, epochs, began, reason)


def _epochs(
    state: State, plan: Plan, kept: ModelCard | None, folder: RunFolder | None, writer: EpochWriter, report: Report
) -> str:
    """Train, validate, save, judge, again and again; returns why it ended. `kept` describes what best.pt holds."""
    config, said = plan.config, set[str]()
    held = kept.epoch if kept else 0
    if state.step == 0 and plan.card.pretrained.used is None:
        start_statistics(state, plan)
    if not is_over(config, state.history):
        where = next(str(choice.value) for choice in plan.choices if choice.name == "cache")
        plan = replace(plan, data=cached(plan.data, state.model, config, where, plan.world, plan.device, report))
    facts = diagnose.facts_of(plan, state.model.network)
    while not is_over(config, state.history):
        began, epoch = time.monotonic(), len(state.history) + 1
        warmed_up = [row for row in state.history if row["step"] > plan.warmup_steps]
        drops = plateau_drops([score(row, config.monitor) for row in warmed_up])
        with fast_float32(plan.device):
            trained = train_epoch(state, plan, epoch, drops, report)
        measured = _validate(state, plan, epoch, report)
        row = _metrics_row(epoch, state.step, trained, measured, time.monotonic() - began)
        # Not than all before: where the best one's checkpoint was lost, best.pt holds the best of what is left.
        best = is_best(row, state.history[held - 1 : held] if held else [], config.monitor)
        held = epoch if best else held
        state.history.append(row)
        if folder is not None:
            _save(state, plan, measured, best, folder)
            writer.write(row)
        report(EpochEnded(row, config.epochs, best, plan.card.pretrained.missing))
        ends = is_over(config, state.history)
        for finding in diagnose.findings(state.history, facts):
            if finding.code not in said or (ends and finding.code in diagnose.AT_THE_END_TOO):
                said.add(finding.code)
                report(Found(finding))
    return str(ending(config, state.history))


def _validate(state: State, plan: Plan, epoch: int, report: Report) -> EvalReport | None:
    if plan.val is None:
        return None
    model, classes = plan.part(state.validated, state.validated.network), plan.card.classes
    try:
        return count(model, plan.val, classes, plan.device, split="val", epoch=epoch, world=plan.world, report=report)
    except CheckpointError as error:
        step, mixed = state.step, plan.amp is not None
        raise DivergedError(diagnose.diverged(epoch, step, step, plan.config, plan.peak_lr, mixed)) from error


def _metrics_row(
    epoch: int, step: int, trained: dict[str, Any], measured: EvalReport | None, seconds: float
) -> dict[str, Any]:
    """Return one line of metrics.jsonl, its names stable."""
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": trained["train_loss"],
        "train_acc": trained["train_acc"],
        "val_loss": measured.loss if measured else None,
        "val_acc": measured.accuracy if measured else None,
        "macro_f1": measured.macro_f1 if measured else None,
        "lr": trained["lr"],
        "images_per_second": trained["images_per_second"],
        "data_wait": trained["data_wait"],
        "seconds": seconds,
    }


def _save(state: State, plan: Plan, measured: EvalReport | None, best: bool, folder: RunFolder) -> None:
    """Write last.pt, best.pt and metrics.jsonl; what a kill in between leaves undone, `--resume` makes from last.pt."""
    splits, raw, validated = plan.prepared.splits, state.model.network, state.validated.network
    for network in (raw, validated):
        try:
            checkpoint.check_finite(network.state_dict(), "weights")
        except CheckpointError as error:
            problem = str(error).partition("; ")[0]
            lower = diagnose.lower_lr(plan.config, plan.peak_lr)
            raise DivergedError(f"{problem}; not saved; {lower} or set --clip-grad 1") from error
    metrics = {}
    if measured is not None:
        metrics = {
            "split": "val",
            "held_out": len(splits.holdout) > 0,
            "images": measured.images,
            "accuracy": measured.accuracy,
            "accuracy_interval": list(measured.accuracy_interval),
            "loss": measured.loss,
            "macro_f1": measured.macro_f1,
        }
    card = replace(plan.card, metrics=metrics, epoch=len(state.history))
    content = splits.holdout_content
    folder.save_last(Checkpoint(card, validated.state_dict(), splits.holdout, state.training_dict(), content))
    if best:
        folder.save_best(Checkpoint(card, validated.state_dict(), splits.holdout, holdout_content=content))
    folder.write_metrics(state.history)


def _best(state: State, plan: Plan, folder: RunFolder, report: Report) -> ModelCard:
    """Return the card of best.pt, which may have been moved away while the run went on."""
    card, lost = resume.kept(folder.path, plan.card, state.history)
    if card is not None:
        return card
    last, _ = run_folder.load_last(folder.path)
    if last is None:
        raise CheckpointError(f"{lost}, as is last.pt: somebody removed them while the run went on; start it again")
    report(Said(_loss(str(lost), state.history, plan.config.monitor), warning=True))
    folder.replace_best(last, lost=True)
    return last.card


def _loss(problem: str, history: Sequence[dict[str, Any]], monitor: str) -> str:
    """Say what takes the place of a best.pt that is missing or damaged."""
    last, best = len(history), best_epoch(history, monitor)
    if best == last:
        return f"{problem}; the best, epoch {best}, is the last: it is made anew from last.pt"
    return f"{problem}; the best, epoch {best}, is lost: the last, {last}, takes its place until a later one is better"


def _try_validation(state: State, plan: Plan, most_batches: int) -> None:
    """Validate a few batches and forget the result, without loader processes, which would go on holding batches."""
    batches = validation_batches(replace(plan.prepared, workers=0), plan.config, plan.world)
    if batches is not None:
        model, classes = state.validated, plan.card.classes
        count(model, batches, classes, plan.device, split="val", world=plan.world, most_batches=most_batches)


def _dry_run(state: State, plan: Plan, report: Report, began: float) -> Finished:
    train_epoch(state, plan, 1, 0, report, most_batches=2 * plan.config.accumulate)
    return Finished(plan.card, None, None, None, 0, time.monotonic() - began, "dry run")


def _conclude(config: TrainConfig, last: Checkpoint, from_last: bool, lost: bool, report: Report) -> str | None:
    """Do what is left of a run whose epochs are done: nothing, or its end, or its best.pt; return what was linked."""
    ended = run_folder.read_config(Path(str(config.out)))["run"]["status"] == "finished"
    if ended and not from_last:
        return None
    with closing(run_folder.create(config)) as folder:
        if from_last:
            folder.replace_best(last, lost)
        return None if ended else _end(config, folder, last.training["history"], report)


def _end(config: TrainConfig, folder: RunFolder, history: Sequence[dict[str, Any]], report: Report) -> str | None:
    """Draw the curves, point ./best.pt at the run's best and record how it ended; return what was linked."""
    folder.finish(history, config.monitor)
    linked = _link(config, folder, report)
    folder.set_status(status="finished", ended=ending(config, history))
    return linked


def _link(config: TrainConfig, folder: RunFolder, report: Report) -> str | None:
    """Point ./best.pt at the run's best checkpoint, when it was started here without a folder and a limit."""
    if config.limit is not None or not folder.is_here_by_default():
        return None
    link = Path("best.pt")
    if files.point(link, Path(run_folder.DEFAULT_PARENT) / folder.path.name / "best.pt"):
        return str(link)
    report(Said("best.pt here is a file of its own and was left alone", warning=True))
    return None


def _finished(
    config: TrainConfig,
    best: ModelCard,
    path: Path,
    linked: str | None,
    history: Sequence[dict[str, Any]],
    epochs_run: int,
    began: float,
    reason: str,
) -> Finished:
    return Finished(
        card=best,
        out=str(path),
        best=str(path / "best.pt"),
        linked=linked,
        epochs_run=epochs_run,
        seconds=time.monotonic() - began,
        reason=reason,
        epochs=len(history),
        best_epoch=best_epoch(history, config.monitor),
        stopped_early=ending(config, history) == "early stop",
    )


def _status(error: BaseException) -> str:
    stopped = (Interrupted, KeyboardInterrupt)
    if isinstance(error, stopped) or isinstance(error.__context__, stopped):  # a loader that got the signal too
        return "interrupted"
    if isinstance(error, DivergedError):
        return "diverged"
    return f"failed: {error}" if isinstance(error, ImgclsError) else f"failed: {type(error).__name__}"
