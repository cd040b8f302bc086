"""`train`: from a TrainConfig to a run folder with the best checkpoint, in the order it happens.

Reports events and returns a result; prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

from imgcls import signals
from imgcls.config import TrainConfig
from imgcls.data.batch import Batch, Data
from imgcls.device import fast_float32
from imgcls.distributed import joined, lost, world_from_environment
from imgcls.engine.assess.validate import reporting, validate
from imgcls.engine.decide.build import Compute, build, choose_compute
from imgcls.engine.decide.inputs import decide_inputs, training_batches, validation_batches
from imgcls.engine.learn.caching import cached
from imgcls.engine.learn.epoch import start_statistics, train_epoch
from imgcls.engine.learn.learner import Learner
from imgcls.engine.learn.meter import Meter
from imgcls.engine.learn.schedules import plateau_drops
from imgcls.engine.run import header, resume
from imgcls.engine.run.diagnosis import Diagnosis, diverged, facts_of
from imgcls.engine.run.history import Row, best_epoch, ending, is_best, is_over, row_of, scores
from imgcls.engine.run.resume import Earlier
from imgcls.engine.run.run import Run
from imgcls.engine.run.saving import Left, NoSaver, Saver, conclude
from imgcls.engine.run.tensorboard import require_tensorboard
from imgcls.engine.run.watch import Watch
from imgcls.errors import DataError, DivergedError, NonFiniteError, ResourceError, UsageError, out_of_memory
from imgcls.events import EpochEnded, Finished, Found, Report, Said, silent
from imgcls.models.classifier import Classifier
from imgcls.models.surgery import last_layers
from imgcls.report import EvalReport

EARLY_BATCHES = 2  # validation batches before training, to fail early
DRY_STEPS = 2

Watched = Callable[[Iterable[Batch]], Iterable[Batch]]
Validate = Callable[[Learner, Data, Report, Watched], EvalReport | None]


def validate_epoch(learner: Learner, data: Data, report: Report, watched: Watched) -> EvalReport | None:
    """Measure the model as it is after an epoch; None: no validation images.

    Raises:
        DivergedError: it gives NaN or infinite logits.
    """
    if data.val is None:
        return None
    run, step, epoch = learner.run, learner.step, learner.epoch
    model = last_layers(learner.validated.network) if data.features else learner.validated
    batches = reporting(watched(data.val.epoch(epoch)), len(data.val), "val", report, epoch)

    def say(text: str) -> None:
        report(Said(text, warning=True))

    try:
        return validate(model, batches, run.card.classes, run.device, split="val", world=run.world, say=say)
    except NonFiniteError as error:
        raise DivergedError(diverged(run, epoch, step), step) from error


def train(config: TrainConfig, report: Report = silent, validate: Validate = validate_epoch) -> Finished:
    """Train a classifier.

    Where `imgcls.signals` catches them, as on the command line, a signal ends the step and saves it. Elsewhere Ctrl-C
    is Python's KeyboardInterrupt, which breaks the step off; then the last save stands.

    Args:
        config: everything there is to say; what is None is decided and reported with its reason.
        report: receives the events of `imgcls.events`.
        validate: measures the model after each epoch.

    Returns:
        The best checkpoint's card and where the files are.

    Raises:
        ImgclsError: an expected failure, with its exit code: see `imgcls.errors`.
    """
    began = time.monotonic()
    if config.tensorboard:
        require_tensorboard()
    world = world_from_environment()
    compute = choose_compute(config, world)
    config.check_paths()  # before the first process can have made the folder that another looks for
    with joined(world, compute.device), _explained(config, compute):
        return _train(config, compute, report, validate, began)


def _train(config: TrainConfig, compute: Compute, report: Report, validate: Validate, began: float) -> Finished:
    is_main = compute.world.is_main
    earlier = resume.find(config)
    if earlier and earlier.damage:
        report(Said(earlier.damage, warning=True))
    last, history = (earlier.last, list(earlier.history)) if earlier else (None, [])
    inputs = decide_inputs(config, last, compute.world, lambda text: report(Said(text)))
    for finding in inputs.splits.findings:
        report(Found(finding))
    if earlier:
        for warning in resume.warnings(config, earlier, inputs, compute.world):
            report(Said(warning, warning=True))
        if is_over(config, history):
            left = conclude(config, earlier, report) if is_main else Left(earlier.last.card)
            return _finished(config, left, history, 0, began, "already finished")
    run, model, data, said = build(config, compute, inputs, last)
    if said:
        report(Said(said))
    _try_validation(run, model)
    with Saver(run) if is_main and not config.dry_run else NoSaver(run) as saver, _explained(config, compute):
        saver.out = compute.world.broadcast_object(saver.out)
        steps_done = earlier.within["steps"] if earlier and earlier.within else 0
        report(header.started(run, model, len(history) + 1, steps_done, saver.out))
        for sentence in header.advice(run):
            report(sentence)
        saver.begin(earlier)
        epochs_before = len(history)
        learner, data = _begin(run, model, data, earlier, report)
        if config.dry_run:
            train_epoch(learner, data, 1, Meter(learner, data.train, report), stop=lambda: learner.step == DRY_STEPS)
            return _finished(config, Left(run.card), history, 0, began, "dry run")
        watch = Watch(run, saver, report, began)
        with signals.deferred():
            learn(learner, data, saver, history, earlier, watch, report, validate)
        left = saver.end(history, report)
        return _finished(config, left, history, len(history) - epochs_before, began, str(ending(config, history)))


def _begin(run: Run, model: Classifier, data: Data, earlier: Earlier | None, report: Report) -> tuple[Learner, Data]:
    """Return the learner, as it was when the run stopped, and the data, cached.

    A new network's BatchNorm gets its first statistics.
    """
    if earlier is None and run.card.pretrained.used is None:
        start_statistics(model, training_batches(replace(run.inputs, workers=0), run.config).epoch(1), run.device)
    if not run.config.dry_run:
        data = cached(run, model, data, report)
    learner = Learner(run, model, on_features=data.features)
    if earlier:
        learner.load_state_dict(earlier.last.training)
    return learner, data


def learn(
    learner: Learner,
    data: Data,
    saver: Saver | NoSaver,
    history: list[Row],
    earlier: Earlier | None,
    watch: Watch,
    report: Report,
    validate: Validate,
) -> None:
    """Train, validate, save and judge, again and again, until the run is over.

    Args:
        learner: is changed.
        data: training and validation images.
        saver: writes the checkpoints.
        history: grows by a row for each epoch.
        earlier: what the run left that goes on; None: it begins.
        watch: saves in the middle of an epoch, and stops.
        report: receives progress.
        validate: measures the model after an epoch.

    Raises:
        Interrupted, TimeLimitError: everything is saved.
        DataError, ResourceError: an image or a loader process failed; the steps before are saved.
        DivergedError, WriteError: what was saved before stands.
    """
    run, config = learner.run, learner.run.config
    diagnosis = Diagnosis(facts_of(run, data, learner.model.network))
    kept, within = (earlier.best_epoch, earlier.within) if earlier else (0, None)
    while not is_over(config, history):
        epoch = len(history) + 1
        meter = Meter(learner, data.train, report, within)
        learner.drops = plateau_drops(scores(history, config.monitor, after_step=run.schedule.warmup))
        watch.begin(learner, history, meter)
        try:
            with fast_float32(run.device):
                trained = train_epoch(learner, data, epoch, meter, watch.after_step)
            began = time.monotonic()
            validated = validate(learner, data, report, watch.over)
        except (DataError, ResourceError):
            watch.rescue()
            raise
        seconds, within = meter.seconds + time.monotonic() - began, None
        row = row_of(epoch, learner.step, learner.lr, trained, validated, seconds)
        # Held against the epoch in best.pt and not against all: the best one's checkpoint may have been lost.
        best = is_best(row, history[kept - 1 : kept] if kept else [], config.monitor)
        kept = epoch if best else kept
        history.append(row)
        saver.save(learner, history, validated, best)
        report(EpochEnded(row, config.epochs, best, run.card.pretrained.missing))
        for finding in diagnosis.new(history):
            report(Found(finding))
        if not is_over(config, history):
            watch.after_epoch()


def _try_validation(run: Run, model: Classifier) -> None:
    """Validate a few batches and forget the result, without loader processes, which would go on holding batches."""
    loader = validation_batches(replace(run.inputs, workers=0), run.config, run.world)
    if loader is not None:
        some = islice(loader.epoch(0), EARLY_BATCHES)
        validate(model, some, run.card.classes, run.device, split="val", world=run.world)


def _finished(
    config: TrainConfig, left: Left, history: list[Row], epochs_run: int, began: float, reason: str
) -> Finished:
    return Finished(
        card=left.card,
        out=str(left.out) if left.out else None,
        best=str(left.out / "best.pt") if left.out else None,
        linked=left.linked,
        epochs_run=epochs_run,
        seconds=time.monotonic() - began,
        reason=reason,
        epochs=len(history),
        best_epoch=best_epoch(history, config.monitor),
        stopped_early=ending(config, history) == "early stop",
    )


@contextmanager
def _explained(config: TrainConfig, compute: Compute) -> Iterator[None]:
    """Turn what torch says of memory, compilation, determinism and lost processes into one line and what to type."""
    device = compute.device
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if config.compile and (problem := _compiling(error)):
            raise UsageError(f"--compile: torch cannot compile this here ({problem}); drop it") from error
        if "does not have a deterministic implementation" in str(error):
            raise UsageError(f"--deterministic: {config.arch} cannot on {device.type}; drop it") from error
        if not out_of_memory(error):
            if problem := lost(compute.world, error):
                raise ResourceError(problem) from error
            raise
        advice = f"lower --batch-size {config.batch_size} and raise --accumulate to match, or lower --size"
        advice += ", or type --cache off" if device.type == "cuda" and config.cache != "off" else ""
        raise ResourceError(f"out of memory on {device}: {advice}") from error


def _compiling(error: Exception) -> str | None:
    """Return the reason when torch.compile failed and not what it compiled."""
    inside = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
    if not inside and "torch.compile" not in str(error):
        return None
    return next(iter(str(error).splitlines()), type(error).__name__)
