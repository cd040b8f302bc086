"""`train`: from a TrainConfig to a run folder with the best checkpoint, in the order it happens.

Reports events and returns a result; prints nothing.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from imgcls import checkpoint, files
from imgcls.checkpoint import Checkpoint
from imgcls.config import TrainConfig
from imgcls.device import choose_amp, choose_device, fast_float32
from imgcls.distributed import World, joined, world_from_environment
from imgcls.engine import announce, diagnose, resume, run_folder
from imgcls.engine.evaluate import count, silent
from imgcls.engine.hold import hold
from imgcls.engine.loop import train_epoch
from imgcls.engine.monitor import is_best, is_over, score
from imgcls.engine.optim import plateau_drops
from imgcls.engine.plan import Plan, State, build
from imgcls.engine.prepare import prepare, validation_batches
from imgcls.engine.run_folder import RunFolder
from imgcls.engine.tensorboard import EpochWriter, NoWriter, TensorBoardWriter, require_tensorboard
from imgcls.errors import CheckpointError, DivergedError, ImgclsError, Interrupted, ResourceError, UsageError
from imgcls.events import EpochEnded, Finished, Found, Report, Said
from imgcls.schema import EvalReport

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
                raise UsageError(f"--deterministic: {config.data.arch} cannot on {device.type}; drop it") from error
            if not isinstance(error, torch.OutOfMemoryError):
                raise
            advice = f"lower --batch-size {config.data.batch_size} and raise --accumulate to match, or lower --size"
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
    prepared = prepare(
        config.data, last.card if last else None, last.holdout if last else None, world, lambda text: report(Said(text))
    )
    for finding in prepared.splits.findings:
        report(Found(finding))
    if last is not None:
        if warning := resume.check(config, last, prepared, world):
            report(Said(warning, warning=True))
        if is_over(config, last.training["history"]):
            if world.is_main:
                run_folder.conclude(config, last.training["history"])
            return _finished(Path(str(config.out)), None, 0, began, "already finished")
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
        reason = _epochs(state, plan, None, NoWriter(), report)
        return Finished(plan.card, None, None, None, len(state.history), time.monotonic() - began, reason)
    with closing(folder):
        if damage:
            folder.use_spare()
        folder.write_config(config, plan.choices, plan.card.data_fingerprint, "running")
        writer = TensorBoardWriter(folder.path, epochs_before + 1) if config.tensorboard else NoWriter()
        try:
            reason = _epochs(state, plan, folder, writer, report)
        except BaseException as error:
            folder.set_status(_status(error))
            raise
        finally:
            writer.close()
        folder.finish(state.history, "finished", config.monitor)
        return _finished(folder.path, _link(config, folder), len(state.history) - epochs_before, began, reason)


def _epochs(state: State, plan: Plan, folder: RunFolder | None, writer: EpochWriter, report: Report) -> str:
    """Train, validate, save, judge, again and again; returns why it ended."""
    config, said = plan.config, set[str]()
    if not is_over(config, state.history):
        plan = hold(state, plan, report)
    facts = diagnose.facts_of(plan, state.model.network)
    while not is_over(config, state.history):
        began, epoch = time.monotonic(), len(state.history) + 1
        warmed_up = [row for row in state.history if row["step"] > plan.warmup_steps]
        drops = plateau_drops([score(row, config.monitor) for row in warmed_up])
        with fast_float32(plan.device):
            trained = train_epoch(state, plan, epoch, drops, report)
        measured = _validate(state, plan, epoch, report)
        row = _metrics_row(epoch, state.step, trained, measured, time.monotonic() - began)
        best = is_best(row, state.history, config.monitor)
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
    return "all epochs" if len(state.history) >= config.epochs else "early stop"


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
    """Write best.pt, last.pt and metrics.jsonl; in this order a kill in between only repeats an epoch."""
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
    if best:
        folder.save_best(Checkpoint(card, validated.state_dict(), splits.holdout))
    folder.save_last(Checkpoint(card, validated.state_dict(), splits.holdout, state.training_dict()))
    folder.write_metrics(state.history)


def _try_validation(state: State, plan: Plan, most_batches: int) -> None:
    """Validate a few batches and forget the result, without loader processes, which would go on holding batches."""
    batches = validation_batches(replace(plan.prepared, workers=0), plan.config.data, plan.world)
    if batches is not None:
        model, classes = state.validated, plan.card.classes
        count(model, batches, classes, plan.device, split="val", world=plan.world, most_batches=most_batches)


def _dry_run(state: State, plan: Plan, report: Report, began: float) -> Finished:
    train_epoch(state, plan, 1, 0, report, most_batches=2 * plan.config.accumulate)
    return Finished(plan.card, None, None, None, 0, time.monotonic() - began, "dry run")


def _link(config: TrainConfig, folder: RunFolder) -> str | None:
    """Point ./best.pt at the run's best checkpoint, when the user named no folder and no limit."""
    if config.out is not None or config.data.limit is not None:
        return None
    link = Path("best.pt")
    return str(link) if files.point(link, folder.path / "best.pt") else None


def _finished(path: Path, linked: str | None, epochs_run: int, began: float, reason: str) -> Finished:
    best = path / "best.pt"
    card = checkpoint.load(best).card
    return Finished(card, str(path), str(best), linked, epochs_run, time.monotonic() - began, reason)


def _status(error: BaseException) -> str:
    stopped = (Interrupted, KeyboardInterrupt)
    if isinstance(error, stopped) or isinstance(error.__context__, stopped):  # a loader that got the signal too
        return "interrupted"
    if isinstance(error, DivergedError):
        return "diverged"
    return f"failed: {error}" if isinstance(error, ImgclsError) else f"failed: {type(error).__name__}"
