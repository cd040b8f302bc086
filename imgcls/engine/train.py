"""`train`: from a TrainConfig to a run folder with the best checkpoint, in the order it happens.

Reports events and returns a result; prints nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import imgcls
from imgcls import checkpoint, files
from imgcls.checkpoint import Checkpoint
from imgcls.config import SMALL_IMAGE, TrainConfig, to_dict
from imgcls.data.loaders import Batches
from imgcls.device import choose_amp, choose_device, full_float32, make_deterministic
from imgcls.distributed import World, joined, world_from_environment
from imgcls.engine import diagnose, run_folder
from imgcls.engine.evaluate import count, silent
from imgcls.engine.loop import Plan, State, balanced_weights, is_frozen, train_epoch
from imgcls.engine.optim import Ema, build_optimizer, choose_lr, choose_warmup, plateau_drops
from imgcls.engine.prepare import Prepared, prepare, training_batches
from imgcls.engine.run_folder import RunFolder
from imgcls.engine.tensorboard import EpochWriter, NoWriter, TensorBoardWriter, require_tensorboard
from imgcls.errors import CheckpointError, DataError, DivergedError, ImgclsError, Interrupted, ResourceError, UsageError
from imgcls.events import EpochEnded, Finished, Found, Report, Said, Started
from imgcls.models import pretrained
from imgcls.models.build import Classifier, build_network, count_parameters, has_small_stem, head, load_state
from imgcls.schema import Choice, EvalReport, ModelCard

EARLY_BATCHES = 2  # validation batches before training, to fail early
# Settings that may differ when a run is resumed, because they do not change what is learnt.
HARMLESS = ("data", "workers", "device", "out", "resume", "overwrite", "tensorboard", "early_stop", "epochs")


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
    began = time.monotonic()
    if config.tensorboard:
        require_tensorboard()
    world = world_from_environment()
    device, _ = choose_device(config.device, world.local_rank)
    run_folder.check(config)
    with joined(world, device):
        try:
            return _train(config, world, device, report, began)
        except torch.OutOfMemoryError as error:
            advice = f"lower --batch-size {config.data.batch_size} and raise --accumulate to match, or lower --size"
            raise ResourceError(f"out of memory on {device}: {advice}") from error


def _train(config: TrainConfig, world: World, device: torch.device, report: Report, began: float) -> Finished:
    last, warning = run_folder.load_last(Path(config.out)) if config.resume and config.out else (None, None)
    if warning:
        report(Said(warning, warning=True))
    prepared = prepare(config.data, last.card if last else None, last.holdout if last else None, world)
    for finding in prepared.splits.findings:
        report(Found(finding))
    if last is not None:
        _check_resumable(config, last, prepared, report)
        if _ended(config, last.training["history"]):
            assert config.out is not None
            return _finished(Path(config.out), None, 0, began, "already finished")
    state, plan, card, choices = _build(config, prepared, world, device, last, report)
    val = _validation_batches(config, prepared, world, device)
    if val is not None:
        count(state.model, val, card.classes, device, split="val", world=world, most_batches=EARLY_BATCHES)
    first_epoch = len(state.history) + 1
    folder = run_folder.create(config) if world.is_main and not config.dry_run else None
    report(_started(config, prepared, state, plan, card, choices, folder, first_epoch))
    for sentence in _unasked_advice(config, prepared, world, device):
        report(sentence)
    if config.dry_run:
        return _dry_run(state, plan, card, val, report, began)
    writer: EpochWriter = NoWriter()
    if folder is not None:
        folder.write_config(config, choices, card.data_fingerprint, "running")
        writer = TensorBoardWriter(folder.path, first_epoch) if config.tensorboard else writer
    try:
        reason = _epochs(state, plan, card, prepared, val, folder, writer, report)
    except BaseException as error:
        if folder is not None:
            folder.set_status(_status(error))
        raise
    finally:
        writer.close()
    if folder is None:
        return Finished(card, None, None, None, len(state.history), time.monotonic() - began, reason)
    folder.finish(state.history, "finished")
    return _finished(folder.path, _link(config, folder), len(state.history) - first_epoch + 1, began, reason)


def _epochs(
    state: State,
    plan: Plan,
    card: ModelCard,
    prepared: Prepared,
    val: Batches | None,
    folder: RunFolder | None,
    writer: EpochWriter,
    report: Report,
) -> str:
    """Train, validate, save, judge, again and again; returns why it ended."""
    config, said = plan.config, set[str]()
    for epoch in range(len(state.history) + 1, config.epochs + 1):
        epoch_began = time.monotonic()
        drops = plateau_drops([score(row, config.monitor) for row in state.history])
        trained = train_epoch(state, plan, epoch, drops, report)
        measured = _validate(state, plan, card, val, epoch, report)
        row = _metrics_row(epoch, state.step, trained, measured, time.monotonic() - epoch_began)
        best = score(row, config.monitor) > max(
            (score(old, config.monitor) for old in state.history), default=-math.inf
        )
        state.history.append(row)
        if folder is not None:
            _save(
                state,
                plan,
                replace(card, metrics=_card_metrics(measured, prepared), epoch=epoch),
                prepared,
                best,
                folder,
            )
            writer.write(row)
        report(EpochEnded(row, config.epochs, best, prepared.start.unasked))
        for finding in diagnose.findings(state.history, config, measured.images if measured else 0):
            if finding.code not in said:
                said.add(finding.code)
                report(Found(finding))
        if _ended(config, state.history):
            break
    return "all epochs" if len(state.history) >= config.epochs else "early stop"


def score(row: dict[str, Any], monitor: str) -> float:
    """Return how good an epoch is by `--monitor`, higher is better; without validation the last is the best."""
    if row["val_acc"] is None:
        return float(row["epoch"])
    if monitor == "val-loss":
        return -float(row["val_loss"])
    return float(row["val_acc"] if monitor == "val-acc" else row["macro_f1"])


def _ended(config: TrainConfig, history: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a run with these epochs behind it is over."""
    if len(history) >= config.epochs:
        return True
    scores = [score(row, config.monitor) for row in history]
    return config.early_stop is not None and len(scores) - 1 - scores.index(max(scores)) >= config.early_stop


def _build(
    config: TrainConfig,
    prepared: Prepared,
    world: World,
    device: torch.device,
    last: Checkpoint | None,
    report: Report,
) -> tuple[State, Plan, ModelCard, tuple[Choice, ...]]:
    """Build the network, its optimizer and the plan, or restore them from `last`."""
    if config.deterministic:
        make_deterministic()
    full_float32()
    amp, precision = choose_amp(config.amp, device)
    torch.manual_seed(config.data.seed)
    classes, start, preprocess = prepared.splits.classes, prepared.start, prepared.preprocess
    stem = _choose_stem(config, preprocess.size, start, last)
    options: dict[str, Any] = {"stem": stem.value, "dropout": config.dropout}
    network = build_network(config.data.arch, len(classes), preprocess.size, **options)
    if start.state is not None:
        report(Said(f"starting from {start.pretrained.used}: {pretrained.apply(start, network, classes, preprocess)}"))
    if last is not None:
        load_state(network, last.model)
    model = Classifier(network, preprocess).to(device)
    batches = training_batches(prepared, config.data, world, pin_memory=device.type == "cuda")
    effective = config.data.batch_size * config.accumulate * world.size
    lr = choose_lr(config, network, start.pretrained.used is not None, effective)
    warmup = choose_warmup(config, -(-len(batches) // config.accumulate))
    counts = prepared.splits.train.counts()
    weights = balanced_weights(counts) if config.class_weights == "balanced" else np.ones(len(classes), np.float32)
    state = State(
        model=model,
        optimizer=build_optimizer(config, network, float(lr.value)),
        scaler=torch.amp.GradScaler(device.type, enabled=amp is torch.float16),
        ema=Ema(model) if config.ema else None,
    )
    if last is not None:
        _restore(state, last)
    plan = Plan(
        config=config,
        world=world,
        device=device,
        amp=amp,
        peak_lr=float(lr.value),
        warmup_steps=int(warmup.value),
        class_weights=torch.from_numpy(weights).to(device),
        batches=batches,
    )
    card = ModelCard(
        arch=config.data.arch,
        arch_options=options,
        classes=classes,
        preprocess=preprocess,
        pretrained=start.pretrained,
        config=to_dict(config),
        data_fingerprint=prepared.splits.fingerprint,
        imgcls_version=imgcls.__version__,
    )
    _, device_choice = choose_device(config.device, world.local_rank)
    return state, plan, card, (device_choice, precision, *prepared.choices, stem, lr, warmup)


def _restore(state: State, last: Checkpoint) -> None:
    training = last.training
    state.optimizer.load_state_dict(training["optimizer"])
    state.scaler.load_state_dict(training["scaler"])
    if state.ema is not None:
        state.ema.load_state_dict(training["ema"])
    state.step, state.history = training["step"], training["history"]


def _choose_stem(config: TrainConfig, size: int, start: pretrained.Start, last: Checkpoint | None) -> Choice:
    if last is not None:
        return Choice("stem", last.card.arch_options["stem"], "that of the run")
    if config.stem != "auto":
        return Choice("stem", config.stem, "as asked")
    if start.card is not None:
        return Choice("stem", start.card.arch_options["stem"], "that of --weights")
    if start.pretrained.used is not None or not has_small_stem(config.data.arch):
        return Choice("stem", "standard", "that of the weights" if start.pretrained.used else "the architecture's own")
    small = size <= SMALL_IMAGE
    return Choice("stem", "small" if small else "standard", f"input {'up to' if small else 'above'} {SMALL_IMAGE} px")


def _check_resumable(config: TrainConfig, last: Checkpoint, prepared: Prepared, report: Report) -> None:
    """Hold the settings and the data against those of the run that is continued.

    Raises:
        UsageError: settings that change what is learnt differ; they are listed.
        DataError: the classes or images differ.
    """
    before, now = last.card.config, to_dict(config)
    differing = [key for key in now if key not in HARMLESS and before.get(key) != now[key]]
    if differing:
        listed = ", ".join(f"{key} was {before.get(key)}, now {now[key]}" for key in differing)
        raise UsageError(
            f"--resume {config.out}: other settings than the run's ({listed}); give its own, or another --out"
        )
    if last.card.classes != prepared.splits.classes:
        raise DataError(f"--resume {config.out}: the run's classes were {', '.join(last.card.classes)}; use its data")
    if last.card.data_fingerprint != prepared.splits.fingerprint:
        raise DataError(f"--resume {config.out}: images were added, removed or changed since; use the run's own data")
    if before["epochs"] != config.epochs and not _ended(config, last.training["history"]):
        if config.schedule == "onecycle":
            raise UsageError(
                f"--epochs {config.epochs}: a onecycle run of {before['epochs']} epochs cannot change length"
            )
        note = (
            f"--epochs was {before['epochs']}, now {config.epochs}: the learning rate follows the new length from here"
        )
        report(Said(note, warning=True))


def _validation_batches(config: TrainConfig, prepared: Prepared, world: World, device: torch.device) -> Batches | None:
    if prepared.splits.val is None:
        return None
    return Batches(
        prepared.splits.val,
        prepared.preprocess,
        batch_size=config.data.batch_size,
        workers=prepared.workers,
        rank=world.rank,
        ranks=world.size,
        pin_memory=device.type == "cuda",
    )


def _validate(
    state: State, plan: Plan, card: ModelCard, val: Batches | None, epoch: int, report: Report
) -> EvalReport | None:
    if val is None:
        return None
    try:
        return count(
            state.validated, val, card.classes, plan.device, split="val", epoch=epoch, world=plan.world, report=report
        )
    except CheckpointError as error:
        raise DivergedError(diagnose.diverged(epoch, state.step, state.step, plan.config, plan.peak_lr)) from error


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


def _card_metrics(measured: EvalReport | None, prepared: Prepared) -> dict[str, Any]:
    if measured is None:
        return {}
    return {
        "split": "val",
        "held_out": len(prepared.splits.holdout) > 0,
        "images": measured.images,
        "accuracy": measured.accuracy,
        "accuracy_interval": list(measured.accuracy_interval),
        "loss": measured.loss,
        "macro_f1": measured.macro_f1,
    }


def _save(state: State, plan: Plan, card: ModelCard, prepared: Prepared, best: bool, folder: RunFolder) -> None:
    """Write best.pt, last.pt and metrics.jsonl; in this order a kill in between only repeats an epoch."""
    last = state.model.network.state_dict()
    validated = state.validated.network.state_dict() if state.ema else last
    for tensors in (last, validated):
        try:
            checkpoint.check_finite(tensors, "weights")
        except CheckpointError as error:
            raise DivergedError(f"{error}; not saved; lower --lr or set --clip-grad 1") from error
    if best:
        folder.save_best(Checkpoint(card, validated, prepared.splits.holdout))
    training = {
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "ema": state.ema.state_dict() if state.ema else None,
        "step": state.step,
        "history": state.history,
    }
    folder.save_last(Checkpoint(card, last, prepared.splits.holdout, training))
    folder.write_metrics(state.history)


def _started(
    config: TrainConfig,
    prepared: Prepared,
    state: State,
    plan: Plan,
    card: ModelCard,
    choices: tuple[Choice, ...],
    folder: RunFolder | None,
    first_epoch: int,
) -> Started:
    splits, network = prepared.splits, state.model.network
    images = {"train": len(splits.train.images)} | ({"val": len(splits.val.images)} if splits.val else {})
    batch, accumulate, processes = config.data.batch_size, config.accumulate, plan.world.size
    parameters = count_parameters(network)
    extras = {
        "label smoothing": config.label_smoothing,
        "class weights": config.class_weights if config.class_weights != "none" else None,
        "mixup": config.mixup,
        "cutmix": config.cutmix,
        "dropout": config.dropout,
        "clip": config.clip_grad,
        "EMA": "on" if config.ema else None,
        "frozen epochs": config.freeze_epochs,
    }
    recipe = [
        f"{config.epochs} epochs",
        f"{config.optimizer} lr {plan.peak_lr:.2g} {config.schedule}, {plan.warmup_steps} warm-up steps",
        f"weight decay {config.weight_decay:g}",
        f"batch {batch} x {accumulate} x {processes} = {batch * accumulate * processes}",
        f"augment {prepared.augmentation}",
        *(f"{name} {value}" for name, value in extras.items() if value),
    ]
    return Started(
        device=choices[0],
        card=card,
        parameters=parameters,
        trainable=count_parameters(head(network)[1]) if is_frozen(config, first_epoch) else parameters,
        images=images,
        source=splits.source,
        recipe=", ".join(recipe),
        choices=choices[1:],
        out=str(folder.path) if folder else None,
        first_epoch=first_epoch,
        epochs=config.epochs,
    )


def _unasked_advice(config: TrainConfig, prepared: Prepared, world: World, device: torch.device) -> list[Said]:
    said = [Said(note) for note in prepared.start.notes]
    if prepared.start.unasked:
        reason = prepared.start.pretrained.reason
        said.append(Said(f"TRAINING FROM SCRATCH, without pretrained weights: {reason}", warning=True))
    if device.type == "cuda" and world.size == 1 and torch.cuda.device_count() > 1:
        count = torch.cuda.device_count()
        line = f"torchrun --standalone --nproc-per-node {count} -m imgcls train …"
        said.append(Said(f"using one of {count} GPUs; to use all: {line}"))
    if prepared.splits.val is None:
        said.append(Said("no validation images: the last epoch counts as the best", warning=True))
    return said


def _dry_run(state: State, plan: Plan, card: ModelCard, val: Batches | None, report: Report, began: float) -> Finished:
    train_epoch(state, plan, 1, 0, report, most_batches=2 * plan.config.accumulate)
    if val is not None:
        count(
            state.validated,
            val,
            card.classes,
            plan.device,
            split="val",
            world=plan.world,
            most_batches=1,
            report=report,
        )
    return Finished(card, None, None, None, 0, time.monotonic() - began, "dry run")


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
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return "interrupted"
    if isinstance(error, DivergedError):
        return "diverged"
    return f"failed: {error}" if isinstance(error, ImgclsError) else f"failed: {type(error).__name__}"
