"""`imgcls train`."""

from __future__ import annotations

import contextlib
import json as json_module
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgcls.cli.console import Console
from imgcls.cli.options import Given, JsonOption, with_settings
from imgcls.cli.text import interval, percent
from imgcls.config import TrainConfig
from imgcls.errors import Exit, Interrupted, TimeLimitError, UsageError, counted
from imgcls.paths import KINDS, check_kind
from imgcls.settings import from_dict, to_dict

if TYPE_CHECKING:
    from imgcls.distributed import World
    from imgcls.events import Finished


# What a run did with its folder and its time is not part of its recipe.
NOT_REPEATED = ("out", "resume", "overwrite", "dry_run", "time_limit")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


@with_settings(TrainConfig)
def train(
    given: Given,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Settings from a config.json; typed options win.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Train a classifier on a folder of images or a data set by name.

    imgcls train --data dataset/ --arch resnet18 --epochs 20
    """
    settings, console = from_dict(TrainConfig, _stored(config, given) | given), Console(json)
    _check_summary(json, settings, config, console)
    settings.check_paths()
    from imgcls.data.splits import check_classes

    check_classes(settings.data)
    from imgcls.cli.progress import Progress
    from imgcls.distributed import world_from_environment
    from imgcls.engine.train import train as run

    world = world_from_environment()
    is_main = world.is_main
    progress = Progress(console, quiet=not is_main)
    try:
        finished = run(settings, progress)
    except (Interrupted, TimeLimitError) as stopped:
        progress.close()
        if progress.out and is_main:
            why = "" if isinstance(stopped, Interrupted) else f" (--time-limit {settings.time_limit:g})"
            console.talk(f"stopped{why}; {_way_on(world, progress.out, settings.time_limit)}")
        if isinstance(stopped, TimeLimitError):
            raise typer.Exit(Exit.TIME_LIMIT) from stopped
        raise
    finally:
        progress.close()
    if not is_main:
        return
    _summarise(settings, finished, console)
    console.write_json(summary(finished))


def _way_on(world: World, out: str, time_limit: float | None) -> str:
    """Return what was saved, and the line that goes on."""
    saved = "go on" if os.path.exists(os.path.join(out, "last.pt")) else "nothing is saved yet; start again"
    limit = "" if time_limit is None else f" --time-limit {time_limit:g}"
    return f"{saved} with: {_program(world)} train --resume --out {shlex.quote(out)}{limit}"


def _program(world: World) -> str:
    """Return how to start as many processes again, which a run cannot do without."""
    if world.size == 1:
        return "imgcls"
    processes = f"--standalone --nproc-per-node {world.size}" if world.size == world.local_size else "…"
    return f"torchrun {processes} -m imgcls"


def _check_summary(json: str | None, settings: TrainConfig, config: str | None, console: Console) -> None:
    """Prove that the summary can be written; the run folder, where it may go too, is made later."""
    if json is None or json == "-":
        return
    check_kind(json, "--json", "JSON")
    if settings.out and os.path.realpath(os.path.dirname(json)) == os.path.realpath(settings.out):
        if os.path.basename(json) == "config.json":
            raise UsageError(f"--json {json}: is the run's own; name another file")
        return
    console.check_json(settings.data, [config])


def summary(finished: Finished) -> dict[str, Any]:
    """Return what `train --json` writes."""
    card = finished.card
    return {
        "ended": finished.reason,
        "stopped_early": finished.stopped_early,
        "out": finished.out,
        "best": finished.best,
        "best_epoch": card.epoch,
        "epochs_run": finished.epochs_run,
        "seconds": finished.seconds,
        "arch": card.arch,
        "classes": list(card.classes),
        "metrics": card.metrics,
        "pretrained": {"asked": card.pretrained.asked, "used": card.pretrained.used, "reason": card.pretrained.reason},
    }


def _summarise(settings: TrainConfig, finished: Finished, console: Console) -> None:
    say = console.say
    card, metrics = finished.card, finished.card.metrics
    if finished.reason == "dry run":
        say("dry run: everything was built, two validation batches and two steps ran; nothing was written")
        return
    if finished.reason == "already finished":
        say(f"{finished.out}: this run is already finished; {_continued_by(settings, finished)}")
    elif finished.stopped_early:
        say(_stopped_early(settings, finished))
    if metrics:
        accuracy = f"{percent(metrics['accuracy'])} ({interval(metrics['accuracy_interval'])})"
        is_best = finished.best_epoch == card.epoch
        name = f"best epoch {card.epoch}" if is_best else f"epoch {card.epoch} (the best that is left)"
        say(f"{name}: validation accuracy {accuracy} on {counted(metrics['images'], 'image')}")
    else:
        say(f"last epoch {card.epoch}: not validated")
    if card.pretrained.missing:
        console.warn(f"trained from scratch: {card.pretrained.reason}")
    if finished.best is None:
        return
    say(f"checkpoint: {finished.best}" + (f" (and {finished.linked} points at it)" if finished.linked else ""))
    name = "" if finished.linked else f" --ckpt {shlex.quote(finished.best)}"
    console.talk(f"next: imgcls evaluate --data {shlex.quote(settings.data)}{name}")
    console.talk(f"      imgcls predict IMAGE{name}")


def _stopped_early(settings: TrainConfig, finished: Finished) -> str:
    waited = finished.epochs - finished.best_epoch
    epochs = f"{waited} epoch{'' if waited == 1 else 's'}"
    where = f"after epoch {finished.epochs} of {settings.epochs}"
    return f"stopped early {where}: no better {settings.monitor} for {epochs} (--early-stop {settings.early_stop})"


def _continued_by(settings: TrainConfig, finished: Finished) -> str:
    """Say what continues a finished run: what ended it, and what would end it again at once."""
    waited, patience = finished.epochs - finished.best_epoch, settings.early_stop
    later = f"--early-stop {waited + patience}, or auto," if patience is not None and waited >= patience else ""
    if finished.stopped_early:
        return f"{_stopped_early(settings, finished)}; {later} continues it"
    return f"a larger --epochs {f'and {later} continue' if later else 'continues'} it"


def _stored(config: str | None, given: Given) -> dict[str, Any]:
    """Return the settings that typed options override: those of `--config`, or of the run that is resumed."""
    if given.get("resume") and given.get("out") and config is None:
        path = Path(given["out"]) / "config.json"
        if not os.path.exists(path):
            if "data" not in given:
                problem = f"--out {given['out']}: holds no run (no config.json)"
                raise UsageError(f"{problem}; name the run's folder, or start one with --data")
            return {}
    elif config is not None:
        path = Path(config)
        if os.path.isdir(path):
            raise UsageError(f"--config {config}: is a folder; {_config_to_type(path)}")
        if not os.path.exists(path):
            raise UsageError(f"--config {config}: no such file; give a config.json")
    else:
        return {}
    try:
        values = json_module.loads(path.read_text(encoding="utf-8"))
        stored = dict(values.get("config", values))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        if config is not None and (met := _no_config(path)):
            raise UsageError(f"--config {config}: {met}") from error
        raise UsageError(f"{path}: not a config.json ({error}); repair or remove it") from error
    if config is not None and not stored.keys() & to_dict(TrainConfig()).keys():
        raise UsageError(f"--config {config}: JSON without any setting of train; {_config_to_type(path.parent)}")
    return {name: value for name, value in stored.items() if name not in NOT_REPEATED}


def _no_config(path: Path) -> str | None:
    """Say what was given in place of a config.json, and what to type; None when it is a damaged one."""
    try:
        with path.open("rb") as file:
            content = file.read(2**16)
    except OSError:
        return None
    try_this = _config_to_type(Path(os.path.realpath(path)).parent)
    if path.suffix.lower() in (*KINDS["checkpoint"], *KINDS["onnx"]):
        return f"a checkpoint, not settings; {try_this}, or see its settings: imgcls info {shlex.quote(str(path))}"
    if b"\0" in content:
        return f"a binary file, not settings; {try_this}"
    lines = content.decode("utf-8", "replace").strip().splitlines()
    with contextlib.suppress(ValueError):
        if len(lines) > 1 and isinstance(json_module.loads(lines[0]), dict):
            return f"one JSON value per line, as metrics.jsonl has, not settings; {try_this}"
    if lines and not lines[0].lstrip().startswith(("{", "[")):
        kind = {".yaml": "YAML", ".yml": "YAML", ".toml": "TOML"}.get(path.suffix.lower(), "text")
        return f'{kind}, and settings are JSON, such as {{"arch": "resnet18", "epochs": 5}}; {try_this}'
    return None


def _config_to_type(folder: Path) -> str:
    """Name the config.json of a run folder, or else the place where one would be."""
    settings = folder / "config.json"
    return f"type --config {shlex.quote(os.path.relpath(settings)) if settings.is_file() else 'runs/…/config.json'}"
