"""Wherever a save is broken off, by a kill, a power cut or a full disk, the run goes on to the same weights.

Two epochs of two steps, saved after each step. Some 60 operations; with what each may leave, some seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from faulty_disk import Content, Disk
from small_runs import Run, run, same, tiny

from imgcls import checkpoint
from imgcls.checkpoint import Checkpoint
from imgcls.config import TrainConfig
from imgcls.engine.run import folder
from imgcls.engine.run.folder import RunFolder
from imgcls.errors import CheckpointError, WriteError

pytest_plugins = ("small_runs",)

ASKED: dict[str, Any] = {"epochs": 2, "limit": 6, "batch_size": 3, "save_every": 0, "augment": "light", "ema": True}


def config(data: Path, out: Path, **asked: Any) -> TrainConfig:
    return tiny(data, out=str(out), resume=True, **ASKED | asked)


@pytest.fixture(scope="module")
def straight(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(config(pictures, tmp_path_factory.mktemp("straight")))


def assert_ends_the_same(pictures: Path, out: Path, straight: Run, why: str) -> None:
    """Go on with what is left in a folder, and hold the end against that of the run that was never broken off."""
    done = run(config(pictures, out))
    for name in ("last.pt", "best.pt"):
        assert same(done.weights(name), straight.weights(name)), (why, name)
        cards = [checkpoint.load(a.folder / name).card for a in (done, straight)]
        assert cards[0].metrics == cards[1].metrics, (why, name)
    numbers = [
        [(row["epoch"], row["step"], row["train_loss"], row["val_loss"]) for row in a.history] for a in (done, straight)
    ]
    assert numbers[0] == numbers[1], why
    assert json.loads((out / "config.json").read_text())["run"]["status"] == "finished", why
    assert {path.name for path in out.iterdir()} == {path.name for path in straight.folder.iterdir()}, why


def test_what_a_kill_or_a_power_cut_leaves_after_each_operation(
    pictures: Path, tmp_path: Path, straight: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was said to be saved is there."""
    (tmp_path / "run").mkdir()
    disk = Disk(tmp_path / "run", records=True)
    save_last = RunFolder.save_last

    def acknowledged(opened: RunFolder, last: Checkpoint) -> None:
        save_last(opened, last)
        disk.acknowledged = last.training["step"]

    monkeypatch.setattr(RunFolder, "save_last", acknowledged)
    with disk.between():
        run(config(pictures, disk.folder))
    monkeypatch.undo()
    assert disk.acknowledged == 4
    assert len(disk.states) > 50
    tried: list[tuple[Content, int]] = []
    for state in disk.states:
        for cause, left in state.left.items():
            if (left, state.acknowledged) in tried:
                continue
            tried.append((left, state.acknowledged))
            why, out = f"{cause} after {state.after}", tmp_path / f"{len(tried)}"
            out.mkdir()
            for name, content in left.items():
                (out / name).write_bytes(content)
            last, _ = folder.load_last(out)
            assert (last.training["step"] if last else 0) >= state.acknowledged, why
            assert_ends_the_same(pictures, out, straight, why)
    assert len(tried) > 40


@pytest.mark.parametrize("until", ["once", "from then on"])
def test_a_disk_that_is_full_at_each_operation(pictures: Path, tmp_path: Path, straight: Run, until: str) -> None:
    """One line that names the file, nothing of the old lost, no temporary file; and the run goes on later."""
    number, refused = 0, 0
    while True:
        out = tmp_path / f"{number}"
        out.mkdir()
        full = (lambda at, n=number: at == n) if until == "once" else (lambda at, n=number: at >= n)
        disk = Disk(out, refused=full)
        try:
            with disk.between():
                run(config(pictures, out))
        except WriteError as error:
            refused += 1
            assert str(out) in str(error), disk.operations[-1]
            assert "no space left on device; free space" in str(error)
        if len(disk.operations) <= number:
            break
        why = disk.operations[number]
        assert not list(out.glob(".imgcls-*")), why
        steps = {json.loads(line)["step"] for line in _lines(out / "metrics.jsonl")}
        last, damage = _last(out)
        assert damage is None, why
        assert last >= max(steps, default=0), why
        assert_ends_the_same(pictures, out, straight, why)
        number += 1
    assert number > 50
    assert refused > 35


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _last(out: Path) -> tuple[int, str | None]:
    try:
        last, damage = folder.load_last(out)
    except CheckpointError as error:
        return 0, str(error)
    return (last.training["step"] if last else 0), damage
