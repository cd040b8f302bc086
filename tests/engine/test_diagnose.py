"""Findings: each raised by a planted setting or data set, and not raised by a clean one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import codes, draw, of, run, tiny

from imgcls import checkpoint
from imgcls.data.loaders import Batch
from imgcls.engine import loop
from imgcls.engine import train as train_module
from imgcls.engine.diagnose import diverged, findings
from imgcls.errors import DivergedError, Exit
from imgcls.events import Found
from imgcls.schema import Finding

pytest_plugins = ("small_runs",)

# A recipe that learns the colours in a few epochs.
CLEAN: dict[str, Any] = {"epochs": 4, "lr": 3e-3, "schedule": "constant", "warmup_epochs": 0}


def found(data: Path, out: Path, **asked: Any) -> dict[str, Finding]:
    """Train, and return the findings but the one on speed, which depends on the machine."""
    done = run(tiny(data, out=str(out), **CLEAN | asked))
    raised = [event.finding for event in of(done.events, Found)]
    assert len({finding.code for finding in raised}) == len(raised), "each is said once"
    return {finding.code: finding for finding in raised if finding.code != "data-wait"}


def test_a_clean_run_has_no_findings(pictures: Path, tmp_path: Path) -> None:
    assert found(pictures, tmp_path) == {}


def test_a_loss_that_does_not_decrease(pictures: Path, tmp_path: Path) -> None:
    """A learning rate so low that nothing is learnt; the advice names it."""
    finding = found(pictures, tmp_path, lr=1e-9)["loss-not-decreasing"]
    assert finding.severity == "warning"
    assert "the training loss does not decrease" in finding.message
    assert "--lr 1e-09 may be too low" in finding.advice
    assert "imgcls inspect-batch" in finding.advice
    assert "--freeze-epochs" not in finding.advice


def test_a_frozen_backbone_is_named_as_a_cause(pictures: Path, tmp_path: Path) -> None:
    finding = found(pictures, tmp_path, lr=1e-9, freeze_epochs="all")["loss-not-decreasing"]
    assert "lower --freeze-epochs" in finding.advice


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise without a class in it: it can be learnt by heart, and tells nothing about other noise."""
    root = tmp_path_factory.mktemp("strangers")
    draw(root, {"train/one": 10, "train/two": 10}, noise=60)
    return draw(root, {"val/one": 40, "val/two": 40}, noise=60, seed=1)


def test_overfitting(strangers: Path, tmp_path: Path) -> None:
    finding = found(strangers, tmp_path, epochs=15, lr=1e-2)["overfitting"]
    assert re.fullmatch(
        r"training accuracy (8|9|10)\d\.\d%, validation only [456]\d\.\d%: overfitting", finding.message
    )
    assert "--augment strong" in finding.advice


def row(**values: Any) -> dict[str, Any]:
    planted = {"train_loss": 1.0, "train_acc": 0.9, "val_acc": 0.9, "lr": 0.1, "data_wait": 0.01, "seconds": 60.0}
    return planted | values


def judged(*rows: dict[str, Any], val_images: int = 1000, **asked: Any) -> list[str]:
    return [finding.code for finding in findings(rows, tiny(".", **asked), val_images)]


def test_a_gap_that_chance_explains_is_no_overfitting() -> None:
    history = [row(train_loss=1 / epoch, train_acc=0.95, val_acc=0.8) for epoch in (1, 2, 3)]
    assert judged(*history, val_images=1000) == ["overfitting"]
    assert judged(*history, val_images=10) == []
    assert judged(*history[:2], val_images=1000) == []
    assert judged(*[line | {"train_acc": None} for line in history]) == []  # mixup
    assert judged(*[line | {"val_acc": None} for line in history]) == []


def test_three_epochs_are_needed_to_judge_the_loss() -> None:
    assert judged(row(), row()) == []
    assert judged(row(), row(), row()) == ["loss-not-decreasing"]
    assert judged(row(), row(train_loss=0.99), row(train_loss=0.9)) == []


def test_waiting_for_data() -> None:
    """The first epoch, which starts the workers, does not count."""
    fast, slow = row(), row(data_wait=0.4)
    assert judged(slow, epochs=2) == judged(slow, fast, epochs=2) == []
    assert judged(fast, slow, epochs=2) == ["data-wait"]
    assert judged(slow, epochs=1) == ["data-wait"], "there is no other"
    (finding,) = findings([fast, slow], tiny(".", workers=4, epochs=2), 10)
    assert finding.message == "40% of the time goes into waiting for images"
    assert "--cache memory or --cache disk, raise --workers," in finding.advice
    (finding,) = findings([fast, slow], tiny(".", workers=4, epochs=2), 10, cached=True)
    assert "--cache" not in finding.advice
    assert judged(fast, row(data_wait=0.4, seconds=2), epochs=2) == [], "less than a second is not worth a word"
    (finding,) = findings([fast, slow], tiny(".", workers=0, epochs=2), 10)
    assert finding.advice == "raise --workers from 0"


def waiting(seconds: float) -> type[loop._Timed]:
    """Return batches that say they were waited for so long."""

    class Waiting(loop._Timed):
        def __iter__(self) -> Iterator[Batch]:
            yield from super().__iter__()
            self.waited = seconds

    return Waiting


def test_a_slow_disk_is_found(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading that takes a hundred times as long as learning; and loading that takes no time."""
    for seconds, expected in ((10.0, True), (0.0, False)):
        monkeypatch.setattr(loop, "_Timed", waiting(seconds))
        done = run(tiny(pictures, **CLEAN, out=str(tmp_path / str(seconds))))
        assert ("data-wait" in codes(done.events)) == expected


# Divergence -----------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_stops_and_keeps_no_nan(pictures: Path, tmp_path: Path) -> None:
    config = tiny(pictures, optimizer="sgd", lr=1e30, schedule="constant", warmup_epochs=0, out=str(tmp_path))
    with pytest.raises(DivergedError, match=r"epoch 1, steps? \d( to \d)?: the loss became NaN or infinite") as caught:
        run(config)
    assert caught.value.exit_code == Exit.DIVERGED
    assert "lower --lr (now 1e+30)" in str(caught.value)
    assert json.loads((tmp_path / "config.json").read_text())["run"]["status"] == "diverged"
    assert not list(tmp_path.glob("*.pt"))


def test_the_epochs_before_divergence_are_kept(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is planted: it breaks in epoch 2, and the checkpoints of epoch 1 are sound."""
    train_epoch = loop.train_epoch

    def breaks(state: Any, plan: Any, epoch: int, *rest: Any) -> Any:
        if epoch == 2:
            next(state.model.network.parameters()).data.fill_(float("nan"))
        return train_epoch(state, plan, epoch, *rest)

    monkeypatch.setattr(train_module, "train_epoch", breaks)
    with pytest.raises(DivergedError, match=r"epoch 2, steps? 4"):
        run(tiny(pictures, epochs=3, out=str(tmp_path)))
    assert checkpoint.load(tmp_path / "last.pt").card.epoch == 1
    assert checkpoint.load(tmp_path / "best.pt").card.epoch == 1


def poisoned(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spoil the weights after the last loss of an epoch was found to be finite."""
    train_epoch = loop.train_epoch

    def spoils(state: Any, plan: Any, *rest: Any) -> Any:
        measured = train_epoch(state, plan, *rest)
        owner = state.ema.model if where == "average" else state.model
        list(owner.network.parameters())[-1].data.fill_(float("nan"))
        return measured

    monkeypatch.setattr(train_module, "train_epoch", spoils)


@pytest.mark.parametrize("where", ["weights", "average"])
@pytest.mark.parametrize("validated", [True, False])
def test_nan_weights_with_a_finite_loss_are_not_saved(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, validated: bool
) -> None:
    poisoned(where, monkeypatch)
    data = pictures if validated else pictures / "train"
    config = tiny(data, val_split=0, ema=where == "average", limit=8, out=str(tmp_path / "run"))
    with pytest.raises(DivergedError):
        run(config)
    assert not list((tmp_path / "run").glob("*.pt"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["run"]["status"] == "diverged"


def test_batch_norm_statistics_that_are_not_finite_are_not_saved(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_epoch = loop.train_epoch

    def spoils(state: Any, *rest: Any) -> Any:
        measured = train_epoch(state, *rest)
        next(state.model.network.buffers()).fill_(float("inf"))
        return measured

    monkeypatch.setattr(train_module, "train_epoch", spoils)
    monkeypatch.setattr(train_module, "_validate", lambda *args: None)
    with pytest.raises(
        DivergedError, match=r"weights: 1\.running_mean has NaN or infinite values; not saved; lower --lr"
    ):
        run(tiny(pictures, arch="bn-cnn", limit=4, out=str(tmp_path / "run")))
    assert not list((tmp_path / "run").glob("*.pt"))


def test_the_sentence_names_what_can_be_tried() -> None:
    assert diverged(2, 5, 5, tiny("."), 0.1, mixed=False).startswith("epoch 2, step 5: ")
    assert diverged(2, 5, 9, tiny("."), 0.1, mixed=False).startswith("epoch 2, steps 5 to 9: ")
    assert diverged(1, 1, 1, tiny(".", clip_grad=1), 0.25, mixed=False).endswith("lower --lr (now 0.25)")
    assert "set --clip-grad 1" in diverged(1, 1, 1, tiny("."), 0.1, mixed=False)
    assert "try --no-amp" in diverged(1, 1, 1, tiny(".", device="cuda"), 0.1, mixed=True)
