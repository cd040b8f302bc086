"""The loop does what a loop written by hand does; windows, freezing and averaging change nothing they should not."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from carrying import shows
from small_runs import Built, Seen, Still, Tensors, built, close, draw, of, run, same, tiny
from torch import nn
from torch.nn import functional as F

from imgcls.checkpoint import Checkpoint
from imgcls.data import draws
from imgcls.data.batch import Batch
from imgcls.data.sample import SHAPES, picture
from imgcls.engine.assess.validate import validate
from imgcls.engine.learn.epoch import start_statistics, train_epoch
from imgcls.engine.learn.meter import Meter, _duration
from imgcls.engine.learn.task import Task, balanced_weights
from imgcls.engine.learn.window import windows
from imgcls.errors import DivergedError, Exit
from imgcls.events import Event, Said, Stepped, silent
from imgcls.models.surgery import last_layers

pytest_plugins = ("small_runs",)


# One run, written by hand ---------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


def weighted(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Sum over the images: the cross-entropy with the smoothed target, times the weight of the image's own label."""
    classes = logits.shape[1]
    targets = (1 - smoothing) * F.one_hot(labels, classes) + smoothing / classes
    return (weight[labels] * -(targets * logits.log_softmax(1)).sum(1)).sum()


def by_hand(data: Path, asked: dict[str, Any]) -> Tensors:
    """Train two epochs at a constant learning rate with nothing but torch, and return the weights."""
    b = built(tiny(data, **asked))
    network, options = b.model, {"lr": asked["lr"], "weight_decay": asked.get("weight_decay", 1e-4)}
    if asked["optimizer"] == "sgd":
        options |= {"momentum": asked.get("momentum", 0.9), "nesterov": asked.get("nesterov", False)}
    optimizer = OPTIMIZERS[asked["optimizer"]](network.parameters(), **options)
    weight, smoothing = torch.ones(2), asked.get("label_smoothing", 0.0)
    if asked.get("class_weights") == "balanced":
        weight = torch.tensor([7 / (2 * 2), 7 / (2 * 5)])  # two blue and five red images, see `seven`
    for epoch in (1, 2):
        for batch in b.data.train.epoch(epoch):
            loss = weighted(network(batch.images), batch.labels, weight, smoothing) / weight[batch.labels].sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            if "clip_grad" in asked:
                nn.utils.clip_grad_norm_(network.parameters(), asked["clip_grad"])
            optimizer.step()
    return network.network.state_dict()


@pytest.mark.parametrize(
    "asked",
    [
        {"optimizer": "sgd", "lr": 0.05},
        {"optimizer": "sgd", "lr": 0.02, "momentum": 0.0},
        {"optimizer": "sgd", "lr": 0.05, "momentum": 0.5, "weight_decay": 0.1},
        {"optimizer": "sgd", "lr": 0.05, "nesterov": True},
        {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.1},
        {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1},
        {"optimizer": "sgd", "lr": 0.05, "label_smoothing": 0.3},
        {"optimizer": "sgd", "lr": 0.05, "class_weights": "balanced"},
        {"optimizer": "sgd", "lr": 0.05, "class_weights": "balanced", "label_smoothing": 0.3},
        {"optimizer": "sgd", "lr": 0.05, "clip_grad": 0.1},
    ],
    ids=str,
)
@shows(
    "train", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "label_smoothing", "class_weights", "clip_grad"
)
def test_a_run_equals_a_loop_written_by_hand(seven: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    constant = {"schedule": "constant", "warmup_epochs": 0, "batch_size": 4, "epochs": 2}
    ours = run(tiny(seven, **asked, **constant, out=str(tmp_path / "run"))).weights()
    assert close(ours, by_hand(seven, asked | constant), 1e-6)
    plain = by_hand(seven, {"optimizer": "sgd", "lr": 0.03} | constant)
    assert not close(ours, plain, 1e-4), "the tolerance would let another recipe pass"


def test_the_norm_of_the_gradient_is_clipped(pictures: Path, seen: Seen) -> None:
    run(tiny(pictures, clip_grad=0.01, dry_run=True))
    assert max(seen.norms) <= 0.01 * 1.001
    seen.norms.clear()
    run(tiny(pictures, dry_run=True))
    assert min(seen.norms) > 0.1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [[1.0, 1.0, 1.0], [0.5, 30.0, 2.0]])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_loss_of_an_image_is_weighted_by_its_own_label(smoothing: float, weight: list[float], share: float) -> None:
    """Against the formula in float64; when images are mixed, for each of the two labels. A filler counts nothing."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(8, 3, generator=generator), torch.tensor([0, 1, 2, 0, 0, 1, 2, 0])
    weights, real = torch.tensor(weight), torch.ones(8, dtype=torch.bool)
    own, others = (
        weighted(logits.double(), targets, weights.double(), smoothing) for targets in (labels, labels.roll(1))
    )
    expected = share * own + (1 - share) * others
    task = Task(weights, smoothing)
    mixed = share * task.loss(logits, labels, real) + (1 - share) * task.loss(logits, labels.roll(1, 0), real)
    assert mixed.item() == pytest.approx(expected.item(), rel=1e-6)
    assert task.loss(logits, labels, ~real).item() == 0
    assert task.right(logits, labels, real).item() == (logits.argmax(1) == labels).sum()
    assert task.right(logits, logits.argmax(1), ~real).item() == 0
    # Both shares of the labels weigh as much as the labels alone, which is what the step is divided by.
    assert weights[labels].sum() == weights[labels.roll(1)].sum()


def test_without_weights_or_smoothing_the_loss_is_torchs_own_bit_by_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(64, 10, generator=generator), torch.arange(64) % 10
    for weights, smoothing in ((torch.ones(10), 0.1), (torch.rand(10, generator=generator), 0.0)):
        answers = []
        for ours in (True, False):
            given = logits.clone().requires_grad_()
            theirs = F.cross_entropy(given, labels, weight=weights, label_smoothing=smoothing, reduction="none").sum()
            loss = Task(weights, smoothing).loss(given, labels, torch.ones(64, dtype=torch.bool)) if ours else theirs
            answers.append((loss.detach(), *torch.autograd.grad(loss, given)))
        assert torch.equal(answers[0][0], answers[1][0])
        assert torch.equal(answers[0][1], answers[1][1])


@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.2}], ids=str)
def test_a_rare_class_is_neither_lost_nor_answered_for_all(tmp_path: Path, mixed: dict[str, float]) -> None:
    """50 images for each one of the other class, as far apart as day and night, weighted and smoothed."""
    data = draw(tmp_path / "data", {"train/blue": 200, "train/red": 4, "val/blue": 10, "val/red": 10}, side=8)
    asked = {"class_weights": "balanced", "label_smoothing": 0.1, "lr": 1e-2, "epochs": 4, "batch_size": 32}
    done = run(tiny(data, **asked, **mixed, out=str(tmp_path / "run")))
    assert done.history[-1]["val_acc"] == 1.0


# Windows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_name", ["pictures", "seven"])  # 24 images: whole windows; 7: a short last batch
@pytest.mark.parametrize("extra", [{}, {"class_weights": "balanced"}, {"label_smoothing": 0.2}, {"clip_grad": 0.05}])
@shows("train", "accumulate")
def test_a_split_batch_equals_a_whole_one(
    request: pytest.FixtureRequest, seen: Seen, data_name: str, extra: dict[str, Any]
) -> None:
    """4 batches of 2 make the same step as one of 8 (no BatchNorm), whatever weighs the images."""
    data = request.getfixturevalue(data_name)
    weights, steps, losses = [], [], []
    for split in ({"batch_size": 8}, {"batch_size": 2, "accumulate": 4}):
        b = built(tiny(data, optimizer="sgd", lr=0.05, **split, **extra))
        losses.append(b.train(1)["train_loss"])
        weights.append(b.model.state_dict())
        steps.append(b.learner.step)
    assert steps == ([3, 3] if data_name == "pictures" else [1, 1])
    assert close(weights[0], weights[1], 1e-6)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert len(seen.train) == 3 + 12 if data_name == "pictures" else 1 + 4


def test_a_short_last_window_weighs_its_images_like_the_others(seven: Path) -> None:
    """7 images in windows of 4: the second step is divided by its own 3 images."""
    weights = []
    for split in ({"batch_size": 4}, {"batch_size": 2, "accumulate": 2}, {"batch_size": 1, "accumulate": 4}):
        b = built(tiny(seven, optimizer="sgd", lr=0.05, **split))
        assert [window.weight for window in windows(b.run, b.data.train, 1)] == [4, 3]
        b.train(1)
        weights.append(b.model.state_dict())
    assert close(weights[0], weights[1], 1e-6)
    assert close(weights[0], weights[2], 1e-6)


def test_balanced_weights_equal_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 5 + [1] * 2 + [2] * 11)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(np.bincount(labels)) == pytest.approx(expected)


# Entered in the middle ------------------------------------------------------------------------------------------------

SIX: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation with a short last window": {"batch_size": 2, "accumulate": 2},
    "accumulation, clipping and averaging": {"batch_size": 3, "accumulate": 2, "clip_grad": 0.1, "ema": True},
    "mixup and dropout": {"arch": "bn-cnn", "mixup": 0.4, "dropout": 0.3},
    "cutmix, class weights and smoothing": {"cutmix": 1.0, "class_weights": "balanced", "label_smoothing": 0.1},
    "strong augmentation, BatchNorm and dropout": {"arch": "bn-cnn", "augment": "strong", "dropout": 0.2},
}


@pytest.mark.parametrize("asked", SIX.values(), ids=SIX)
def test_an_epoch_goes_on_from_any_step_bit_by_bit(seven: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    """Stopped after the first step of each of two epochs, built anew, restored and continued."""
    config = tiny(seven, **{"batch_size": 3, "epochs": 2, "optimizer": "sgd", "lr": 0.05} | asked)
    straight, parts = built(config), built(config)
    for epoch in (1, 2):
        straight.train(epoch)
        first = parts.learner.step
        meter = Meter(parts.learner, len(parts.data.train), silent)
        train_epoch(parts.learner, parts.data, epoch, meter, stop=lambda: True)
        assert parts.learner.step == first + 1
        parts = built(config, after(parts))
        parts.train(epoch, start=1)
    assert parts.learner.step == straight.learner.step > 2
    for one, other in zip(everything(straight), everything(parts), strict=True):
        assert torch.equal(one, other)


def after(b: Built) -> Checkpoint:
    """Return what last.pt would hold."""
    model = {key: value.clone() for key, value in b.learner.validated.network.state_dict().items()}
    return Checkpoint(b.run.card, model, b.run.inputs.splits.holdout, copy.deepcopy(b.learner.state_dict()))


def everything(b: Built) -> list[torch.Tensor]:
    """Return weights, averages, statistics and the optimizer's memory."""
    states = [b.model.state_dict(), b.learner.validated.state_dict()]
    memory = [values for state in b.learner.optimizer.state.values() for values in state.values()]
    return [*(tensor for state in states for tensor in state.values()), *memory]


# What is measured -----------------------------------------------------------------------------------------------------


def test_one_batch_is_overfitted(pictures: Path) -> None:
    b = built(tiny(pictures, limit=8, lr=3e-3, schedule="constant", warmup_epochs=0, epochs=40))
    measured = [b.train(epoch) for epoch in range(1, 41)]
    assert measured[-1]["train_acc"] == 1.0
    assert measured[-1]["train_loss"] < 0.2 * measured[0]["train_loss"]


def test_training_loss_and_accuracy_are_those_of_the_images(seven: Path) -> None:
    """With the weights held still, they equal torch's over all images at once."""
    config = tiny(seven, batch_size=2, accumulate=2, class_weights="balanced", label_smoothing=0.1)
    b = built(config, kind=Still)
    stepped: list[Event] = []
    measured = b.train(1, stepped.append)
    batches = list(b.data.train.epoch(1))
    images, labels = (torch.cat([getattr(batch, part) for batch in batches]) for part in ("images", "labels"))
    logits = b.model(images)
    expected = weighted(logits, labels, b.run.task.weights, 0.1) / b.run.task.weights[labels].sum()
    assert measured["train_loss"] == pytest.approx(expected.item(), abs=1e-6)
    assert measured["train_acc"] == (logits.argmax(1) == labels).double().mean().item()
    assert of(stepped, Stepped)[-1].loss == pytest.approx(expected.item(), abs=1e-6)


def test_the_expected_time_is_said_after_20_steps_on_a_cpu(pictures: Path) -> None:
    events: list[Event] = []
    b = built(tiny(pictures, batch_size=1))
    b.train(1, events.append)
    assert [event.text.rstrip("0123456789 s") for event in of(events, Said)] == ["expected time on this CPU:"]
    b.train(2, events.append)
    assert len(of(events, Said)) == 1


@pytest.mark.parametrize(("seconds", "words"), [(9, "9 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_said_in_fitting_units(seconds: float, words: str) -> None:
    assert _duration(seconds) == words


# BatchNorm ------------------------------------------------------------------------------------------------------------


def copied(b: Built) -> Tensors:
    return {key: value.clone() for key, value in b.model.network.state_dict().items()}


def test_a_fresh_networks_statistics_begin_with_those_of_the_first_batch(pictures: Path) -> None:
    b = built(tiny(pictures, arch="bn-cnn"))
    before = copied(b)
    convolution, norm = b.model.network[0], b.model.network[1]  # type: ignore[index]
    with torch.no_grad():
        outputs = convolution(b.model.normalize(next(b.data.train.epoch(1)).images))
    start_statistics(b.model, b.data.train.epoch(1), b.run.device)
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm.running_var, outputs.var((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert norm.momentum == 0.1
    after = copied(b)
    assert {key.split(".")[1] for key in after if not torch.equal(before[key], after[key])} == {
        *("running_mean", "running_var", "num_batches_tracked")
    }


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 40 of each of `sample-data`'s five shapes, for training; the same pictures are there for validation."""
    root, generator = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for shape in SHAPES:
        (root / "train" / shape).mkdir(parents=True)
        for number in range(40):
            picture(shape, generator).save(root / "train" / shape / f"{number}.png")
    shutil.copytree(root / "train", root / "val")
    return root


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        *(("bn-cnn", 16), ("resnet9-half", 16), ("densenet121", 32), ("efficientnet_b0", 32), ("googlenet", 32)),
        *(("mnasnet0_5", 32), ("mobilenet_v2", 32), ("mobilenet_v3_small", 32), ("regnet_x_400mf", 32)),
        *(("regnet_y_400mf", 32), ("resnet18", 32), ("shufflenet_v2_x0_5", 32)),
    ],
)
def test_every_network_validates_as_it_trains(shapes: Path, arch: str, size: int) -> None:
    """After 25 steps, on the training images: what a few pictures teach about others is not asked here.

    One of each family with BatchNorm, for 1 to 8 s each: statistics come in by training only. The larger ones have the
    same momentum and heads; tests/models look at all.
    """
    b = built(tiny(shapes, arch=arch, size=size, stem="standard", epochs=5, batch_size=40, lr=1e-3))
    start_statistics(b.model, b.data.train.epoch(1), b.run.device)
    trained = [b.train(epoch) for epoch in range(1, 6)][-1]
    assert b.data.val is not None
    measured = validate(b.model, b.data.val.epoch(0), b.run.card.classes, b.run.device, split="val")
    assert measured.accuracy > max(0.25, trained["train_acc"] - 0.15)  # seen: 0.41 to 1.00, at most 0.05 below


# Freezing -------------------------------------------------------------------------------------------------------------


def parts(b: Built) -> tuple[Tensors, Tensors]:
    """Return copies of backbone and head of a bn-cnn: its last layer is the head."""
    values = {key: value.clone() for key, value in b.model.network.state_dict().items()}
    last = list(values)[-1].split(".")[0]
    return (
        {key: value for key, value in values.items() if not key.startswith(last + ".")},
        {key: value for key, value in values.items() if key.startswith(last + ".")},
    )


@pytest.mark.parametrize("freeze_epochs", [1, 2, "all"])
@shows("train", "freeze_epochs")
def test_frozen_for_n_epochs(pictures: Path, freeze_epochs: Any) -> None:
    """The head learns, the backbone stays bit for bit, BatchNorm statistics included; then it learns too."""
    config = tiny(pictures, arch="bn-cnn", freeze_epochs=freeze_epochs, lr=1e-3, epochs=3, weight_decay=0.1, limit=8)
    b = built(config)
    for epoch in (1, 2, 3):
        backbone, head = parts(b)
        b.train(epoch)
        new_backbone, new_head = parts(b)
        assert not same(head, new_head)
        frozen = freeze_epochs == "all" or epoch <= freeze_epochs
        assert same(backbone, new_backbone) == frozen
        moved = not torch.equal(backbone["1.running_mean"], new_backbone["1.running_mean"])
        assert moved == (not frozen)


def test_a_frozen_backbone_rests_as_a_whole(pictures: Path) -> None:
    """Its dropout and its stochastic depth too; the dropout before the head acts."""
    b = built(tiny(pictures, arch="efficientnet_b0", size=32, freeze_epochs=1))
    features: list[torch.Tensor] = []
    dropout = last_layers(b.model.network)[0]
    dropout.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].clone()))  # it drops in place
    images = next(b.data.train.epoch(1)).images
    for epoch, frozen in ((1, True), (2, False), (1, True)):
        b.learner.begin(epoch)
        torch.manual_seed(0)
        first, second = b.model(images), b.model(images)
        assert torch.equal(*features) == frozen
        assert not torch.equal(first, second)
        training = {name for name, module in b.model.network.named_modules() if module.training}
        assert (training == {"classifier.0", "classifier.1"}) == frozen
        features.clear()
    learning = {name for name, weights in b.model.network.named_parameters() if weights.requires_grad}
    assert learning == {"classifier.1.weight", "classifier.1.bias"}


def test_the_header_counts_what_learns(pictures: Path) -> None:
    from small_runs import started

    frozen, free = (started(run(tiny(pictures, freeze_epochs=epochs, dry_run=True)).events) for epochs in ("all", 0))
    assert frozen.trainable == 3 * 16 * 8 * 8 + 3
    assert frozen.parameters == free.parameters == free.trainable > frozen.trainable


# Weight averaging -----------------------------------------------------------------------------------------------------


@shows("train", "ema")
def test_ema_is_validated_and_kept(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    """Both files hold the average, whose accuracy they state; last.pt the weights behind it, too."""
    from imgcls import checkpoint
    from imgcls.engine.assess.evaluate import evaluate

    asked = {"optimizer": "sgd", "lr": 0.02, "schedule": "constant", "warmup_epochs": 0}
    done = run(tiny(pictures, ema=True, **asked, out=str(tmp_path / "ema")))
    b = built(tiny(pictures, **asked))
    average = {key: value.clone() for key, value in b.model.network.state_dict().items()}
    optimizer = torch.optim.SGD(b.model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    for step, batch in enumerate(b.data.train.epoch(1), start=1):
        optimizer.zero_grad()
        loss = F.cross_entropy(b.model(batch.images), batch.labels)
        torch.autograd.backward(loss)
        optimizer.step()
        decay = (1 + step) / (10 + step)
        for key, value in b.model.network.state_dict().items():
            average[key] = decay * average[key] + (1 - decay) * value
    last = checkpoint.load(done.folder / "last.pt")
    assert close(last.training["raw"], b.model.network.state_dict(), 1e-6)
    assert not close(average, b.model.network.state_dict(), 1e-4)
    for name in ("best.pt", "last.pt"):
        assert close(done.weights(name), average, 1e-6)
        report = evaluate(str(pictures), str(done.folder / name), device="cpu", workers=0, batch_size=8)
        assert (report.loss, report.accuracy) == (done.history[0]["val_loss"], done.history[0]["val_acc"])
        stated = checkpoint.load(done.folder / name).card.metrics
        assert (report.loss, report.accuracy) == (stated["loss"], stated["accuracy"])


# Randomness and failure -----------------------------------------------------------------------------------------------


def test_dropout_is_a_function_of_the_step(pictures: Path) -> None:
    """What others draw from torch's generator meanwhile changes nothing; another seed of the step does."""
    weights = []
    for disturbance in (1, 7):
        b = built(tiny(pictures, dropout=0.5))
        torch.rand(disturbance)
        b.train(1)
        weights.append(b.model.state_dict())
    assert same(*weights)
    assert len({draws.step_seed(0, epoch, batch, rank) for epoch in (1, 2) for batch in (1, 2) for rank in (0, 1)}) == 8


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_steps(pictures: Path) -> None:
    config = tiny(pictures, optimizer="sgd", lr=1e30, schedule="constant", warmup_epochs=0)
    b = built(config)
    with pytest.raises(DivergedError, match=r"epoch 1, steps? 1( to \d)?: the loss became NaN or infinite; lower --lr"):
        b.train(1)
    with pytest.raises(DivergedError) as caught:
        b.train(2)
    assert caught.value.exit_code == Exit.DIVERGED
    assert "set --clip-grad 1" in str(caught.value)
    assert "--no-amp" not in str(caught.value)


def test_the_wait_for_batches_is_counted(pictures: Path) -> None:
    """By a clock that goes on 3 s for each of three batches, and 1 s for each step."""
    now = [0.0]

    def passing(seconds: float) -> None:
        now[0] += seconds

    class SlowLoader:
        def __init__(self, loader: Any) -> None:
            self.order, self.labels, self.nbytes, self._loader = loader.order, loader.labels, 0, loader

        def __len__(self) -> int:
            return len(self.order)

        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            for batch in self._loader.epoch(epoch, start):
                passing(3)
                yield batch

    class Slow(Still):
        def update(self) -> None:
            passing(1)

    b = built(tiny(pictures), kind=Slow)
    meter = Meter(b.learner, 3, silent, clock=lambda: now[0])
    for window in windows(b.run, SlowLoader(b.data.train), 1, clock=meter.clock):
        meter.add(window, b.learner.learn(window))
    measured = meter.epoch()
    assert measured["data_wait"] == pytest.approx(9 / 12)
    assert measured["images_per_second"] == pytest.approx(24 / 12)
