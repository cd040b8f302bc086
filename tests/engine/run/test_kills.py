"""A run that is killed again and again, at random moments, ends as one that was left alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from small_runs import run, same, tiny

from imgcls import checkpoint, signals
from imgcls.config import TrainConfig
from imgcls.errors import Interrupted

pytest_plugins = ("small_runs",)

KILLS = int(os.environ.get("IMGCLS_TEST_KILLS", "30"))
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CLOCKS = ("seconds", "images_per_second", "data_wait")

# Everything that draws random numbers, has a memory or a sum; saved at every step.
ASKED: dict[str, Any] = {"arch": "bn-cnn", "epochs": 6, "batch_size": 2, "accumulate": 2, "augment": "strong"}
ASKED |= {"dropout": 0.3, "ema": True, "mixup": 0.2, "schedule": "plateau", "early_stop": 6, "save_every": 0}
ASKED |= {"cache": "off", "class_weights": "balanced"}


def forked(config: TrainConfig) -> None:
    """Train, and end as the command does."""
    signals.catch()
    try:
        run(config)
    except Interrupted as interrupted:
        os._exit(128 + interrupted.signum)
    os._exit(0)


def start(config: TrainConfig) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=forked, args=(config,))
    process.start()
    return process


def left(out: Path) -> list[dict[str, Any]]:
    """Return metrics.jsonl without its clock columns."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]


def test_a_run_that_is_killed_at_random_ends_as_one_that_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    """With another number of loader processes each time. Half a second for each kill, which is what it is about."""
    config = tiny(pictures, **ASKED)
    alone = start(replace(config, out=str(tmp_path / "alone")))
    alone.join()
    assert alone.exitcode == 0
    chance, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        runs += 1
        out = tmp_path / f"{runs}"
        ended = None
        while ended != 0:
            process = start(replace(config, out=str(out), resume=True, workers=chance.choice((0, 1, 2))))
            process.join(chance.uniform(0.05, 0.6))
            if process.exitcode is None:
                signum = chance.choice(SIGNALS)
                os.kill(process.pid or 0, signum)
                kills += 1
                process.join(20)
                assert process.exitcode in (-signum, 128 + signum, 0), "it neither hangs nor fails"
            ended = process.exitcode
            assert ended == 0 or ended is None or ended < 0 or ended >= 128, (kills, ended)
        for name in ("last.pt", "best.pt"):
            one, other = (checkpoint.load(tmp_path / folder / name) for folder in ("alone", f"{runs}"))
            assert same(one.model, other.model), (runs, kills, name)
            assert one.card.metrics == other.card.metrics
        assert left(tmp_path / "alone") == left(out)
        last = [checkpoint.load(tmp_path / folder / "last.pt").training for folder in ("alone", f"{runs}")]
        assert same(last[0]["raw"], last[1]["raw"])
        states = [training["optimizer"]["state"] for training in last]
        assert all(same(states[0][key], states[1][key]) for key in states[0])
    assert kills >= KILLS
