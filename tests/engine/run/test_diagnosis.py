"""Findings: each raised by a planted setting or data set, and not raised by a clean one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import built, codes, draw, of, run, tiny
from torch.nn import functional as F

from imgcls import checkpoint
from imgcls.config import TrainConfig
from imgcls.data.batch import Batch, Data
from imgcls.engine.learn.learner import Learner
from imgcls.engine.learn.window import Waiting
from imgcls.engine.run import diagnosis as diagnose
from imgcls.engine.run.diagnosis import AT_THE_END_TOO, Facts, diverged, facts_of, findings
from imgcls.engine.train import Watched, validate_epoch
from imgcls.errors import DivergedError, Exit
from imgcls.events import EpochEnded, Event, Found, Report
from imgcls.report import EvalReport
from imgcls.schema import Finding

pytest_plugins = ("small_runs",)

# A recipe that learns the colours in a few epochs.
CLEAN: dict[str, Any] = {"epochs": 4, "lr": 3e-3, "schedule": "constant", "warmup_epochs": 0}


def found(data: Path, out: Path, **asked: Any) -> dict[str, Finding]:
    """Train, and return the findings but the one on speed, which depends on the machine."""
    done = run(tiny(data, out=str(out), **CLEAN | asked))
    raised = [event.finding for event in of(done.events, Found) if event.finding.code not in AT_THE_END_TOO]
    assert len({finding.code for finding in raised}) == len(raised), "each is said once"
    return {event.finding.code: event.finding for event in of(done.events, Found) if event.finding.code != "data-wait"}


def test_a_clean_run_has_no_findings(pictures: Path, tmp_path: Path) -> None:
    assert found(pictures, tmp_path) == {}


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise without a class in it: it can be learnt by heart, and tells nothing about other noise."""
    root = tmp_path_factory.mktemp("strangers")
    draw(root, {"train/one": 10, "train/two": 10}, noise=60)
    return draw(root, {"val/one": 40, "val/two": 40}, noise=60, seed=1)


# Nothing is learnt ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("asked", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}], ids=str)
def test_labels_are_not_blamed_for_what_mixing_does(pictures: Path, tmp_path: Path, asked: dict[str, float]) -> None:
    finding = found(pictures, tmp_path, lr=1e-9, **asked)["loss-not-decreasing"]
    assert " ".join(f"--{name} {value:g}" for name, value in asked.items()) + " makes it harder" in finding.advice
    assert "labels" not in finding.advice


def row(**values: Any) -> dict[str, Any]:
    planted = {"train_loss": 1.0, "train_acc": 0.9, "val_loss": 1.0, "val_acc": 0.9, "lr": 0.1, "data_wait": 0.01}
    return planted | {"epoch": 1, "seconds": 60.0, "step": 100} | values


def facts(config: TrainConfig, **known: Any) -> Facts:
    """Return the facts of a run on two classes of 500 images, and as many for validation."""
    even = np.array([500, 500])
    planted: dict[str, Any] = {"lr": config.lr or 3e-4, "warmup_steps": 0, "train": even, "val": even}
    planted |= {"held_out": False, "label_weights": np.ones(2), "batch_norm": False, "could_be_pretrained": False}
    return Facts(config=config, **planted | {"cached": False} | known)


def judge(*rows: dict[str, Any], known: dict[str, Any] | None = None, **asked: Any) -> list[Finding]:
    return findings(rows, facts(tiny(".", **{"epochs": 9} | asked), **known or {}))


def judged(*rows: dict[str, Any], val_images: int = 1000, **asked: Any) -> list[str]:
    known = {"val": np.array([val_images // 2, val_images // 2])}
    return [finding.code for finding in judge(*rows, known=known, **asked)]


def test_three_epochs_are_needed_to_judge_the_loss() -> None:
    assert judged(row(), row()) == []
    assert judged(row(), row(), row()) == ["loss-not-decreasing"]
    assert judged(row(), row(train_loss=0.99), row(train_loss=0.9)) == []


def test_a_rate_that_nobody_set_is_called_automatic() -> None:
    (finding,) = judge(row(), row(), row(), known={"lr": 0.17500000000000002})
    assert "the automatic learning rate of 0.175 (set --lr) may be too low" in finding.advice
    assert "--lr 0.1" not in finding.advice
    (finding,) = judge(row(), row(), row(lr=1e-5), lr=0.25)
    assert "--lr 0.25 may be too low" in finding.advice, "the peak, whatever the schedule made of it"


def test_a_loss_that_is_low_from_the_start_need_not_decrease() -> None:
    """A head on good features; and with smoothed labels, below whose entropy no loss can fall."""
    assert judged(*[row(train_loss=0.02)] * 3) == []
    smoothed = facts(tiny(".", label_smoothing=0.1))
    lowest = -(0.95 * np.log(0.95) + 0.05 * np.log(0.05))
    assert lowest < 0.9 * smoothed.guessing
    assert judged(*[row(train_loss=lowest + 0.05)] * 3, label_smoothing=0.1) == []
    assert judged(*[row(train_acc=None, train_loss=0.5)] * 3, mixup=1.0) == []


def test_a_loss_that_falls_to_that_of_guessing_and_stays_there() -> None:
    """As when a high learning rate has killed every unit but the last biases."""
    (finding,) = judge(*[row(train_loss=loss) for loss in (5, 0.694, 0.694, 0.693)])
    assert finding.message == "the training loss stays at 0.6930 after 4 epochs, no better than guessing (0.6931)"
    assert judged(*[row(train_loss=loss) for loss in (5, 2, 0.694, 0.693)]) == [], "still falling"
    assert judged(*[row(train_loss=loss) for loss in (0.8, 0.76, 0.75)]) == [], "slowly, and not there yet"


def test_the_loss_of_guessing_is_that_of_the_best_constant_answer() -> None:
    """Against torch, with weights and smoothing: no constant logits have a lower loss than those of the shares."""
    weights, counts = torch.tensor([0.5, 3.0, 1.0]), np.array([60, 10, 30])
    labels = torch.arange(3).repeat_interleave(torch.from_numpy(counts))
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(200):
        each = F.cross_entropy(logits.expand(100, 3), labels, label_smoothing=0.2, reduction="none")
        loss = (each * weights[labels]).sum() / weights[labels].sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    known = {"train": counts, "label_weights": weights.double().numpy()}
    assert facts(tiny(".", label_smoothing=0.2), **known).guessing == pytest.approx(loss.item(), rel=1e-5)
    assert facts(tiny(".")).guessing == pytest.approx(math.log(2))
    assert facts(tiny("."), train=np.array([3, 0])).guessing == 0


def test_a_warm_up_is_waited_for_and_named() -> None:
    rows = [row(step=step) for step in (10, 20, 30)]
    assert judge(*rows, known={"warmup_steps": 30}, warmup_epochs=3) == []
    (finding,) = judge(*rows, known={"warmup_steps": 29}, warmup_epochs=2.9)
    assert finding.advice.startswith("29 of these 30 steps were warm-up (lower --warmup-epochs); ")
    (finding,) = judge(*rows, known={"warmup_steps": 3}, warmup_epochs=0.3)
    assert "warm-up" not in finding.advice
    stopped = [row(step=10), row(step=20, val_acc=0.8)]
    (finding,) = judge(*stopped, known={"warmup_steps": 30}, warmup_epochs=3, early_stop=1)
    assert str(finding).startswith("stopped early, after 20 of 30 warm-up steps: the learning rate was never reached; ")
    assert judge(*stopped, known={"warmup_steps": 15}, warmup_epochs=1.5, early_stop=1) == []


def test_settings_beyond_what_recipes_use_are_named() -> None:
    absurd: dict[str, Any] = {"dropout": 0.95, "weight_decay": 100.0, "label_smoothing": 0.99, "clip_grad": 1e-12}
    (finding,) = judge(row(), row(), row(), **absurd)
    named = "--dropout 0.95 --weight-decay 100 --label-smoothing 0.99 --clip-grad 1e-12 may be too strong"
    assert named in finding.advice
    (finding,) = judge(row(), row(), row(), dropout=0.5, weight_decay=0.05, label_smoothing=0.1, clip_grad=1.0)
    assert "too strong" not in finding.advice


# The loss explodes ----------------------------------------------------------------------------------------------------


def test_an_absurd_learning_rate_is_said_at_the_epoch_and_at_the_end(strangers: Path, tmp_path: Path) -> None:
    """The loss stays finite, and the run is worth nothing."""
    done = run(tiny(strangers, **CLEAN | {"lr": 100.0}, out=str(tmp_path)))
    events = [event for event in done.events if isinstance(event, (EpochEnded, Found))]
    said = [event.finding.code if isinstance(event, Found) else "epoch" for event in events]
    last_epoch = len(said) - 1 - said[::-1].index("epoch")
    assert [place for place, code in enumerate(said) if code == "loss-exploded"] == [1, last_epoch + 1]
    for finding in [event.finding for event in of(done.events, Found) if event.finding.code == "loss-exploded"]:
        assert finding.severity == "warning"
        assert re.fullmatch(r"the training loss of \S+ is far above that of guessing \(0\.693\)", finding.message)
        assert finding.advice == "lower --lr (now 100), or set --clip-grad 1"


def test_which_loss_has_exploded_and_why() -> None:
    (finding,) = judge(row(train_loss=3.7e12), known={"lr": 12.8})
    assert finding.message == "the training loss of 3.7e+12 is far above that of guessing (0.693)"
    assert finding.advice == "set --lr below 12.8, the automatic learning rate, or set --clip-grad 1"
    (finding,) = judge(row(val_loss=3.7e12), lr=100.0, clip_grad=1.0)
    assert finding.message == "the validation loss of 3.7e+12 is far above that of guessing (0.693)"
    assert finding.advice == "lower --lr (now 100)"
    (finding,) = judge(row(val_loss=3.7e12), lr=100.0, known={"batch_norm": True})
    assert finding.advice.startswith("BatchNorm's statistics may not be those of the data yet")
    (finding,) = judge(row(train_loss=3.7e12), weight_decay=1e6, clip_grad=1.0, lr=0.1)
    assert finding.advice == "lower --weight-decay (now 1e+06), or lower --lr (now 0.1)"
    assert judge(row(train_loss=5.0, val_loss=5.0)) == []
    assert judge(row(val_loss=None, val_acc=None)) == []
    assert judged(*[row(train_loss=1e9)] * 3) == ["loss-exploded"], "the labels are not to blame"


# Validation lags behind -----------------------------------------------------------------------------------------------


def test_validation_at_chance_while_training_is_not(strangers: Path, tmp_path: Path) -> None:
    raised = found(strangers, tmp_path, epochs=15, lr=1e-2)
    assert set(raised) == {"validation-at-chance"}
    finding = raised["validation-at-chance"]
    assert re.fullmatch(
        r"validation accuracy [456]\d\.\d % after 15 epochs is no better than chance \(always answering the most "
        r"frequent class: 50\.0 % of 80 images\), while training accuracy is \d+\.\d %",
        finding.message,
    )
    assert "overfitting" not in str(finding)
    assert "BatchNorm" not in finding.advice
    assert "imgcls inspect-batch --split val" in finding.advice
    assert "by heart" in finding.advice


FIVE: dict[str, Any] = {"train": np.full(5, 120), "val": np.full(5, 30), "label_weights": np.ones(5)}


def test_the_causes_of_validation_at_chance_are_those_of_the_run() -> None:
    at_chance = [row(train_acc=0.67, val_acc=0.2, train_loss=1 / epoch) for epoch in (1, 2, 3)]
    (finding,) = judge(*at_chance, known=FIVE | {"batch_norm": True, "held_out": True}, ema=True)
    assert finding.code == "validation-at-chance"
    assert finding.advice.startswith("BatchNorm's statistics may not be those of the data yet")
    assert "--ema may lag behind" in finding.advice
    assert "another kind" not in finding.advice, "they are of one folder"


def test_what_counts_as_chance() -> None:
    def raised(epochs: int = 3, known: dict[str, Any] = FIVE, of_run: int = 9, **values: Any) -> bool:
        rows = [row(**{"train_loss": 1.5 / epoch} | values) for epoch in range(1, epochs + 1)]
        return "validation-at-chance" in [finding.code for finding in judge(*rows, known=known, epochs=of_run)]

    assert raised(train_acc=0.67, val_acc=0.2)
    assert raised(train_acc=0.67, val_acc=0.1), "below it too"
    assert not raised(train_acc=0.67, val_acc=0.35), "150 images can tell"
    recovering = [row(train_acc=0.67, val_acc=share) for share in (0.2, 0.4, 0.2)]
    assert not judge(*recovering[:2], recovering[2] | {"train_loss": 0.5}, known=FIVE), "it has its ups and downs"
    assert not raised(train_acc=0.25, val_acc=0.2), "training is at chance itself"
    assert not raised(train_acc=0.67, val_acc=0.2, epochs=2), "too early"
    assert raised(train_acc=0.67, val_acc=0.2, epochs=2, of_run=2), "there is nothing to wait for"
    rare = FIVE | {"train": np.array([900, 25, 25, 25, 25]), "val": np.array([146, 1, 1, 1, 1])}
    assert not raised(known=rare, train_acc=0.93, val_acc=0.97), "both answer the frequent class"
    few = FIVE | {"val": np.array([1, 1, 1, 1, 0])}
    assert not raised(known=few, train_acc=0.8, val_acc=0.5), "four images cannot tell"
    assert raised(train_acc=None, val_acc=0.2, train_loss=0.8), "mixed labels: the loss tells"
    assert not raised(train_acc=None, val_acc=0.2, train_loss=1.5)
    assert not raised(known=FIVE | {"val": None}, train_acc=0.67, val_acc=None, val_loss=None)


def test_overfitting(tmp_path: Path) -> None:
    """A quarter of the training labels are wrong: they are learnt by heart, and the right ones as well."""
    layout = {"train/blue": 15, "train/red": 15, "val/blue": 60, "val/red": 60}
    data = draw(tmp_path / "data", layout)
    for number in range(4):
        blue, red = (data / "train" / name / f"{number:03d}.png" for name in ("blue", "red"))
        pixels = blue.read_bytes(), red.read_bytes()
        red.write_bytes(pixels[0])
        blue.write_bytes(pixels[1])
    raised = found(data, tmp_path / "run", epochs=8, lr=1e-2)
    assert set(raised) == {"overfitting"}
    words = r"training accuracy (8|9|10)\d\.\d %, validation only [678]\d\.\d %: overfitting"
    assert re.fullmatch(words, raised["overfitting"].message)
    assert "--augment strong" in raised["overfitting"].advice
    assert "--pretrained" not in raised["overfitting"].advice, "there are no weights of this network"


def test_a_gap_that_chance_explains_is_no_overfitting() -> None:
    history = [row(train_loss=1 / epoch, train_acc=0.95, val_acc=0.8) for epoch in (1, 2, 3)]
    assert judged(*history, val_images=1000) == ["overfitting"]
    assert judged(*history, val_images=10) == []
    assert judged(*history[:2], val_images=1000) == []
    assert judged(*[line | {"train_acc": None} for line in history]) == []  # mixup
    known = {"val": None}
    assert judge(*[line | {"val_acc": None, "val_loss": None} for line in history], known=known) == []


@pytest.mark.parametrize(
    ("asked", "advised"),
    [
        ({"arch": "resnet18"}, True),
        ({"arch": "simple-cnn"}, False),
        ({"arch": "resnet18", "pretrained": False}, False),
    ],
    ids=str,
)
def test_weights_are_advised_where_there_are_some(pictures: Path, asked: dict[str, Any], advised: bool) -> None:
    b = built(tiny(pictures, **asked))
    known = facts_of(b.run, b.data, b.model.network)
    assert known.could_be_pretrained == advised
    assert known.batch_norm == (asked["arch"] == "resnet18")
    frozen = replace(b.run, config=replace(b.run.config, freeze_epochs="all"))
    assert not facts_of(frozen, b.data, b.model.network).batch_norm, "its statistics stay as they are"
    assert (known.train.tolist(), known.held_out) == ([8, 8, 8], False)
    history = [row(train_loss=1 / epoch, train_acc=0.95, val_acc=0.8) for epoch in (1, 2, 3)]
    (finding,) = judge(*history, known={"could_be_pretrained": advised})
    assert ("--pretrained" in finding.advice) == advised


# Speed ----------------------------------------------------------------------------------------------------------------


def test_waiting_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first epoch, which starts the workers, does not count."""
    monkeypatch.setattr(diagnose, "available_cpus", lambda: 4)
    fast, slow = row(), row(data_wait=0.4)
    assert judged(slow, epochs=2) == judged(slow, fast, epochs=2) == []
    assert judged(fast, slow, epochs=2) == ["data-wait"]
    assert judged(slow, epochs=1) == ["data-wait"], "there is no other"
    (finding,) = judge(fast, slow, workers=4, epochs=2)
    assert finding.message == "40.0 % of the time goes into waiting for images"
    assert "--cache memory or --cache disk, raise --workers," in finding.advice
    (finding,) = judge(fast, slow, workers=4, epochs=2, known={"cached": True})
    assert "--cache" not in finding.advice
    assert judged(fast, row(data_wait=0.4, seconds=2), epochs=2) == [], "less than a second is not worth a word"
    (finding,) = judge(fast, slow, workers=0, epochs=2)
    assert finding.advice == "raise --workers from 0"
    (finding,) = judge(fast, slow, workers=100, epochs=2)
    assert finding.advice == "lower --workers 100: there are 4 CPUs"


def test_a_slow_disk_is_found(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading that takes a hundred times as long as learning; and loading that takes no time."""
    waited = Waiting.__iter__

    for seconds, expected in ((10.0, True), (0.0, False)):

        def slow(waiting: Waiting, seconds: float = seconds) -> Iterator[Batch]:
            for batch in waited(waiting):
                waiting.seconds = seconds
                yield batch

        monkeypatch.setattr(Waiting, "__iter__", slow)
        done = run(tiny(pictures, **CLEAN, out=str(tmp_path / str(seconds))))
        assert ("data-wait" in codes(done.events)) == expected


# Divergence -----------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_stops_and_keeps_no_nan(pictures: Path, tmp_path: Path) -> None:
    config = tiny(pictures, optimizer="sgd", lr=1e30, schedule="constant", warmup_epochs=0, out=str(tmp_path))
    sentence = r"epoch 1, step (\d): the loss or its gradient became NaN or infinite on (\S+png,? ){3}and 5 more"
    with pytest.raises(DivergedError, match=sentence) as caught:
        run(config)
    assert caught.value.exit_code == Exit.DIVERGED
    assert "lower --lr (now 1e+30)" in str(caught.value)
    status = json.loads((tmp_path / "config.json").read_text())["run"]
    assert (status["status"], status["step"]) == ("diverged", caught.value.step)
    assert len(status["images"]) == 8 and all(Path(image).is_file() for image in status["images"])
    assert not list(tmp_path.glob("*.pt"))


def test_the_epochs_before_divergence_are_kept(pictures: Path, tmp_path: Path) -> None:
    """The weights break after epoch 1 was saved: its checkpoints are sound."""
    learners: list[Learner] = []

    def look(learner: Learner, data: Data, report: Report, watched: Watched) -> EvalReport | None:
        learners.append(learner)
        return validate_epoch(learner, data, report, watched)

    def break_them(event: Event) -> None:
        if isinstance(event, EpochEnded):
            next(learners[0].model.network.parameters()).data.fill_(float("nan"))

    with pytest.raises(DivergedError, match="epoch 2, step 4: "):
        run(tiny(pictures, epochs=3, out=str(tmp_path)), break_them, validate=look)
    assert checkpoint.load(tmp_path / "last.pt").card.epoch == 1
    assert checkpoint.load(tmp_path / "best.pt").card.epoch == 1


@pytest.mark.parametrize("where", ["weights", "average"])
@pytest.mark.parametrize("validated", [True, False])
def test_nan_weights_with_a_finite_loss_are_not_saved(
    pictures: Path, tmp_path: Path, where: str, validated: bool
) -> None:
    """They are spoiled after the last loss of the epoch was found to be finite."""

    def spoil(learner: Learner, data: Data, report: Report, watched: Watched) -> EvalReport | None:
        model = learner.model if where == "weights" else learner.validated
        list(model.network.parameters())[-1].data.fill_(float("nan"))
        return validate_epoch(learner, data, report, watched)

    data = pictures if validated else pictures / "train"
    config = tiny(data, val_split=0, ema=where == "average", limit=8, out=str(tmp_path / "run"))
    with pytest.raises(DivergedError):
        run(config, validate=spoil)
    assert not list((tmp_path / "run").glob("*.pt"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["run"]["status"] == "diverged"


def test_batch_norm_statistics_that_are_not_finite_are_not_saved(pictures: Path, tmp_path: Path) -> None:
    def spoil(learner: Learner, data: Data, report: Report, watched: Watched) -> None:
        next(learner.model.network.buffers()).fill_(float("inf"))

    sentence = r"weights: 1\.running_mean has NaN or infinite values; not saved; set --lr below"
    with pytest.raises(DivergedError, match=sentence):
        run(tiny(pictures, arch="bn-cnn", limit=4, out=str(tmp_path / "run")), validate=spoil)
    assert not list((tmp_path / "run").glob("*.pt"))


def test_the_sentence_names_what_can_be_tried(pictures: Path) -> None:
    run = built(tiny(pictures)).run

    def said(peak: float, **asked: Any) -> str:
        schedule = replace(run.schedule, peak=peak)
        return diverged(replace(run, config=tiny(pictures, **asked), schedule=schedule), 2, 5, ["a.png", "b.png"])

    assert said(0.1).startswith(
        "epoch 2, step 5: the loss or its gradient became NaN or infinite on a.png, b.png; set --lr below 0.1"
    )
    assert said(0.25, clip_grad=1, lr=0.25).endswith("; lower --lr (now 0.25)")
    assert said(12.8, clip_grad=1).endswith("; set --lr below 12.8, the automatic learning rate")
    assert "lower --weight-decay" in said(0.1, weight_decay=1e9)
    assert "set --clip-grad 1" in said(0.1)
    assert "--no-amp" not in said(0.1)
    assert diverged(replace(run, amp=torch.float16), 1, 1).startswith("epoch 1, step 1: the network gives NaN in valid")
    assert diverged(replace(run, amp=torch.float16), 1, 1).endswith("try --no-amp")
