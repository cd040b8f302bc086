"""Evaluation gives the accuracy that training stored, and nothing about batches or workers changes it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from loading import loader
from small_runs import COLOURS, Run, codes, draw, of, run, tiny

import imgcls
from imgcls import checkpoint
from imgcls.checkpoint import Checkpoint
from imgcls.data.holdout import NO_HOLDOUT
from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing
from imgcls.data.splits import open_source
from imgcls.engine.assess.evaluate import evaluate
from imgcls.engine.assess.validate import validate
from imgcls.errors import DataError, Exit, NonFiniteError, UsageError
from imgcls.events import Event, Found, Said, Stepped
from imgcls.models.classifier import build_model
from imgcls.pixels.decode import decode
from imgcls.pixels.transform import transform
from imgcls.report import ClassReport, EvalReport
from imgcls.schema import ModelCard, Preprocess, Pretrained

pytest_plugins = ("small_runs",)

RATES = ("accuracy", "accuracy_interval", "precision", "recall", "f1")
ASKED: dict[str, Any] = {"epochs": 3, "lr": 2e-3, "augment": "standard"}


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a folder with val/."""
    return run(tiny(pictures, out=str(tmp_path_factory.mktemp("trained")), **ASKED))


def of_best(done: Run, data: Path, **asked: Any) -> EvalReport:
    options: dict[str, Any] = {"device": "cpu", "workers": 0, "batch_size": 8}
    return evaluate(str(data), str(done.folder / "best.pt"), **options | asked)


def matrix(report: EvalReport) -> tuple[tuple[int, ...], ...]:
    """Return the confusion matrix, which every report of few classes has."""
    assert report.confusion is not None
    return report.confusion


def test_the_stored_validation_accuracy_is_that_of_evaluate(trained: Run, pictures: Path) -> None:
    stored = trained.finished.card.metrics
    report = of_best(trained, pictures, split="val")
    assert (report.accuracy, report.loss, report.images) == (stored["accuracy"], stored["loss"], stored["images"])
    assert list(report.accuracy_interval) == stored["accuracy_interval"]
    assert report.macro_f1 == stored["macro_f1"]
    assert report.accuracy > 0, "an untrained network would make this test weak"
    row = trained.history[trained.finished.card.epoch - 1]
    assert (row["val_acc"], row["val_loss"]) == (report.accuracy, report.loss)


def test_so_it_is_with_images_held_out(tmp_path: Path) -> None:
    """The checkpoint remembers which; images added later change nothing, and what is left is "train"."""
    flat = draw(tmp_path / "flat", dict.fromkeys(COLOURS, 10))
    done = run(tiny(flat, out=str(tmp_path / "run"), **ASKED))
    stored = done.finished.card.metrics
    assert stored["held_out"] is True
    assert stored["images"] == 6
    for number in (0, 1):
        shutil.copy(flat / "red" / f"{number:03d}.png", flat / "red" / f"new-{number}.png")
    for split in ("val", None):
        report = of_best(done, flat, split=split)
        assert report.split == "val"
        assert (report.accuracy, report.loss, report.images) == (stored["accuracy"], stored["loss"], 6)
    assert of_best(done, flat, split="train").images == 24 + 2


def test_workers_change_nothing_and_batches_next_to_nothing(trained: Run, pictures: Path) -> None:
    first = of_best(trained, pictures)
    assert of_best(trained, pictures, workers=2) == first
    for batch_size in (1, 5, 64):
        other = of_best(trained, pictures, batch_size=batch_size)
        assert (other.accuracy, other.confusion) == (first.accuracy, first.confusion)
        assert other.loss == pytest.approx(first.loss, abs=1e-6)


def test_predict_agrees_with_evaluate_image_by_image(trained: Run, pictures: Path) -> None:
    """The confusion matrix and the loss can be rebuilt from the predictions."""
    model = imgcls.load(str(trained.folder / "best.pt"), device="cpu")
    paths = sorted(str(path) for path in (pictures / "val").glob("*/*.png"))
    confusion = np.zeros((3, 3), dtype=int)
    losses = []
    classes = model.card.classes
    for path, prediction in zip(paths, model.predict(paths, top_k=3, workers=0), strict=True):
        truth = Path(path).parent.name
        assert prediction.class_name is not None
        assert prediction.top is not None
        confusion[classes.index(truth), classes.index(prediction.class_name)] += 1
        losses.append(-np.log(next(score.confidence for score in prediction.top if score.class_name == truth)))
        assert classes[of_one_image(trained, Path(path))] == prediction.class_name
    report = of_best(trained, pictures, split="val")
    assert report.confusion == tuple(map(tuple, confusion.tolist()))
    assert report.loss == pytest.approx(np.mean(losses), abs=1e-5)


def of_one_image(done: Run, path: Path) -> int:
    """Evaluate a data set of this picture alone; returns the class that it is taken for."""
    loaded = checkpoint.load(done.folder / "best.pt")
    pixels = np.asarray(decode(str(path)))[None]
    labels = np.array([loaded.card.classes.index(path.parent.name)], dtype=np.int64)
    listing = Listing("one", ArrayImages.of("one", pixels), labels, loaded.card.classes)
    batches = loader(listing, 1, preprocess=loaded.card.preprocess)
    answers: list[int] = []
    validate(
        build_model(loaded.card, loaded.model),
        batches.epoch(0),
        listing.classes,
        torch.device("cpu"),
        split="one",
        each=lambda found: answers.extend(found.predicted.tolist()),
    )
    (answer,) = answers
    return answer


def test_which_split_is_evaluated(trained: Run, pictures: Path, tmp_path: Path) -> None:
    """The test split if there is one, else validation; and it is said."""
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    draw(data, {"test/blue": 2, "test/red": 1})
    said: list[Event] = []
    report = of_best(trained, data, report=said.append)
    assert (report.split, report.images) == ("test", 3)
    assert [event.text for event in of(said, Said)] == [f"evaluating {data}/test: 3 images (test)"]
    assert report.per_class[1].support == 0, "no green in this test split"
    assert codes(said) == {"class-without-images"}
    assert of_best(trained, data, split="train").images == 24
    assert of_best(trained, data / "val").split == "all"  # class folders alone
    assert of_best(trained, data, limit=2).images == 2


@pytest.mark.parametrize("missing", [["blue"], ["blue", "green"], ["green"], ["red"]], ids=" and ".join)
def test_a_missing_class_leaves_every_other_label_right(
    trained: Run, pictures: Path, tmp_path: Path, missing: list[str]
) -> None:
    """By position, a split that lacks the first class would shift the others."""
    whole = of_best(trained, pictures)
    table = matrix(whole)
    assert min(map(max, table)) > 0
    assert table[0] != table[1] != table[2], "equal rows would make this test weak"
    left = [name for name in COLOURS if name not in missing]
    for name in left:
        shutil.copytree(pictures / "val" / name, tmp_path / "val" / name)
    said: list[Event] = []
    report = of_best(trained, tmp_path, report=said.append)
    (finding,) = (event.finding for event in of(said, Found))
    listed = ", ".join(f"'{name}'" for name in missing)
    assert finding.message == f"{tmp_path}/val: no images of class {listed}"
    assert report.classes == tuple(COLOURS)
    for name, row, before, counts, expected in zip(
        *(report.classes, report.per_class, whole.per_class, matrix(report), table), strict=True
    ):
        if name in missing:
            assert row == ClassReport(class_name=name, support=0, **dict.fromkeys(RATES))
            assert counts == (0, 0, 0)
        else:
            assert (row.support, row.recall, row.accuracy_interval) == (4, before.recall, before.accuracy_interval)
            assert counts == expected
    recalls = [row.recall for row in whole.per_class if row.class_name in left and row.recall is not None]
    assert report.accuracy == report.macro_recall == pytest.approx(sum(recalls) / len(left))


def test_the_checkpoints_class_order_is_the_one_that_counts(trained: Run, pictures: Path, tmp_path: Path) -> None:
    """The same network with its answers in another order than that of the folders."""
    loaded, order = checkpoint.load(trained.folder / "best.pt"), [2, 0, 1]
    classes = tuple(loaded.card.classes[index] for index in order)
    turned = {key: tensor[order] if key in ("4.weight", "4.bias") else tensor for key, tensor in loaded.model.items()}
    card = dataclasses.replace(loaded.card, classes=classes)
    checkpoint.save(tmp_path / "turned.pt", Checkpoint(card, turned, loaded.holdout))
    whole = of_best(trained, pictures)
    report = evaluate(str(pictures), str(tmp_path / "turned.pt"), device="cpu", workers=0, batch_size=8)
    assert report.classes == ("red", "blue", "green")
    assert report.per_class == tuple(whole.per_class[index] for index in order)
    assert report.confusion == tuple(tuple(matrix(whole)[i][j] for j in order) for i in order)
    assert report.loss == pytest.approx(whole.loss, abs=1e-6)
    shutil.copytree(pictures / "val" / "blue", tmp_path / "val" / "blue")
    alone = evaluate(str(tmp_path), str(tmp_path / "turned.pt"), device="cpu", workers=0)
    assert alone.confusion == ((0, 0, 0), report.confusion[1], (0, 0, 0))


def test_a_missing_class_and_an_unknown_one_on_photographs(photographs: Path, tmp_path: Path) -> None:
    """A resnet18 that knows bees, wasps and ants, in this order, on photographs of ants alone."""
    ants = sorted((photographs / "val/ants").glob("*.jpg"))[:30]
    (tmp_path / "data/val/ants").mkdir(parents=True)
    for path in ants:
        (tmp_path / "data/val/ants" / path.name).symlink_to(path)
    card = ModelCard(
        arch="resnet18",
        arch_options={},
        classes=("bees", "wasps", "ants"),
        preprocess=Preprocess(size=64, resize=72),
        pretrained=Pretrained(asked="no", used=None, reason=""),
        imgcls_version="0.1.0",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(card).network
    ckpt = str(tmp_path / "random.pt")
    for _ in range(2):  # the second time with answers that differ from photograph to photograph
        checkpoint.save(Path(ckpt), Checkpoint(card, network.state_dict(), NO_HOLDOUT))
        model = imgcls.load(ckpt, device="cpu")
        pixels = [transform(decode(str(path)), card.preprocess) for path in ants]
        network.state_dict()["fc.bias"] -= torch.from_numpy(model.logits(np.stack(pixels)).mean(0))
    predicted = [answer.class_name for answer in model.predict(map(str, ants), workers=0)]
    assert len(set(predicted)) == 3, "one answer for all would make this test weak"

    report = evaluate(str(tmp_path / "data"), ckpt, device="cpu", workers=0)
    assert report.confusion == ((0, 0, 0), (0, 0, 0), tuple(map(predicted.count, card.classes)))
    assert report.accuracy == predicted.count("ants") / 30
    assert [row.support for row in report.per_class] == [0, 0, 30]
    assert [row.recall for row in report.per_class] == [None, None, report.accuracy]

    (tmp_path / "data/val/ants").rename(tmp_path / "data/val/antz")
    with pytest.raises(DataError) as caught:
        evaluate(str(tmp_path / "data"), ckpt, device="cpu", workers=0)
    assert caught.value.exit_code == Exit.DATA
    assert str(caught.value) == (
        f"{tmp_path}/data/val: unknown class 'antz' (did you mean 'ants'?); the model knows 'bees', 'wasps', 'ants': "
        "remove or rename the folder"
    )


# Two classes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run that tells blue from red badly, and 60 pictures of each to be told apart."""
    root = tmp_path_factory.mktemp("unsure")
    data = draw(root / "data", {"train/blue": 10, "train/red": 10, "test/blue": 60, "test/red": 40}, noise=250)
    return run(tiny(data, out=str(root / "run"), val_split=0, lr=3e-3)), data


@pytest.mark.parametrize("positive", [None, "blue", "red"])
def test_the_two_class_figures_can_be_had_from_the_predictions(unsure: tuple[Run, Path], positive: str | None) -> None:
    done, data = unsure
    paths = sorted(str(path) for path in data.glob("test/*/*.png"))
    name = positive or "red"
    truth = np.array([Path(path).parent.name == name for path in paths])
    answers = imgcls.load(str(done.folder / "last.pt"), device="cpu").predict(paths, top_k=2, workers=0)
    scores = np.array([{s.class_name: s.confidence for s in answer.top or ()}[name] for answer in answers])
    for threshold in (None, 0.3, 0.5, 0.6):
        report = evaluate(
            str(data), str(done.folder / "last.pt"), device="cpu", workers=0, positive=positive, threshold=threshold
        )
        two = report.binary
        assert two is not None
        assert two.auc is not None
        assert ({two.positive, two.negative}, two.positive) == ({"blue", "red"}, name)
        assert two.threshold == (threshold or 0.5)
        assert two.auc == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores), abs=1e-9)
        assert 0.5 < two.auc < 1
        found = scores >= two.threshold
        assert two.true_positives == (found & truth).sum()
        assert two.false_positives == (found & ~truth).sum()
        assert two.true_negatives == (~found & ~truth).sum()
        assert two.false_negatives == (~found & truth).sum()
        if two.threshold == 0.5:
            assert two.accuracy == report.accuracy
            assert two.recall == report.per_class[report.classes.index(name)].recall
        json.dumps(report.to_dict(), allow_nan=False)


def test_the_threshold_changes_nothing_but_the_two_class_figures(unsure: tuple[Run, Path]) -> None:
    done, data = unsure
    reports = [
        evaluate(str(data), str(done.folder / "last.pt"), device="cpu", workers=0, positive=name, threshold=share)
        for name, share in ((None, None), ("blue", None), ("red", 0.0), ("red", 1.0))
    ]
    assert len({dataclasses.replace(report, binary=None) for report in reports}) == 1
    assert [two.binary.true_positives + two.binary.false_positives for two in reports[2:] if two.binary] == [100, 0]


def test_one_class_alone_has_no_curve(unsure: tuple[Run, Path], tmp_path: Path) -> None:
    done, data = unsure
    shutil.copytree(data / "test/red", tmp_path / "data/test/red")
    ckpt, out = str(done.folder / "last.pt"), str(tmp_path / "report")
    report = evaluate(str(tmp_path / "data"), ckpt, device="cpu", workers=0, out=out, limit=12)
    assert report.binary is not None
    assert (report.binary.auc, report.binary.roc, report.binary.specificity) == (None, None, None)
    assert report.binary.recall == report.accuracy
    assert (tmp_path / "report/roc.png").exists()


def test_three_classes_have_no_positive_one(trained: Run, pictures: Path) -> None:
    assert of_best(trained, pictures).binary is None
    with pytest.raises(UsageError, match=r"--positive is for two classes, and .*best\.pt has 3; drop --positive"):
        of_best(trained, pictures, positive="red")
    with pytest.raises(UsageError, match=r"--threshold is for two classes, and .*best\.pt has 3; drop --threshold"):
        of_best(trained, pictures, threshold=0.5)


# What it is of -------------------------------------------------------------------------------------------------------


def test_a_report_says_what_it_is_of(
    trained: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the link, with the hash of the file; equal figures are equal reports whenever they were measured."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/one").mkdir(parents=True)
    shutil.copy(trained.folder / "best.pt", "runs/one/best.pt")
    (tmp_path / "best.pt").symlink_to("runs/one/best.pt")
    report = evaluate(str(pictures), device="cpu", workers=0, batch_size=8)
    of = report.origin
    assert of is not None
    assert (of.checkpoint, of.file, of.arch) == ("best.pt", "runs/one/best.pt", "simple-cnn")
    assert of.sha256 == hashlib.sha256((trained.folder / "best.pt").read_bytes()).hexdigest()
    assert of.epoch == checkpoint.load(trained.folder / "best.pt").card.epoch
    assert (of.data, of.where) == (str(pictures), f"{pictures}/val")
    assert of.fingerprint == open_source(str(pictures)).splits["val"]().images.fingerprint()
    assert abs(datetime.strptime(of.date, "%Y-%m-%dT%H:%M:%S%z").timestamp() - time.time()) < 3600
    assert of.versions["imgcls"] == imgcls.__version__
    assert of.versions["torch"] == torch.__version__
    assert str(of).startswith(
        f"best.pt -> runs/one/best.pt (simple-cnn, epoch {of.epoch}) on {of.where}, {of.date}, imgcls "
    )
    assert report.to_dict()["origin"] == dataclasses.asdict(of)
    direct = evaluate(str(pictures), "runs/one/best.pt", device="cpu", workers=0, batch_size=8)
    assert direct.origin is not None
    assert direct.origin.file == direct.origin.checkpoint == "runs/one/best.pt"
    assert direct == report


def test_the_images_of_training_and_validation_are_known_again(trained: Run, pictures: Path, tmp_path: Path) -> None:
    """Under another name too; nothing is claimed of a test split, or of other images of the same names and sizes."""
    copy = Path(shutil.copytree(pictures, tmp_path / "copy"))
    draw(tmp_path / "other", {"train/blue": 8, "train/green": 8, "train/red": 8, "test/red": 3}, seed=1)
    draw(copy, {"test/blue": 2})
    for path in tmp_path.glob("other/train/*/*.png"):
        assert path.stat().st_size == (pictures / path.relative_to(tmp_path / "other")).stat().st_size
    for data, asked, expected in (
        (pictures, {}, "validated on"),
        (pictures, {"split": "train"}, "trained on"),
        (pictures, {"split": "train", "limit": 3}, "trained on"),
        (copy, {"split": "val"}, "validated on"),
        (copy / "train", {}, "trained on"),
        (copy / "val", {}, "validated on"),
        (copy, {}, None),
        (tmp_path / "other", {"split": "train"}, None),
        (tmp_path / "other", {}, None),
    ):
        said: list[Event] = []
        report = of_best(trained, data, report=said.append, **asked)
        assert report.seen_in_training == report.to_dict()["seen_in_training"] == expected, (data, asked)
        assert codes(said) & {"trained-on", "validated-on", "perhaps-trained-on"} == (
            set() if expected is None else {expected.replace(" ", "-")}
        )


def test_so_are_those_held_out_and_the_others(tmp_path: Path) -> None:
    flat = draw(tmp_path / "flat", dict.fromkeys(COLOURS, 10))
    done = run(tiny(flat, out=str(tmp_path / "run"), **ASKED))
    assert of_best(done, flat).seen_in_training == "validated on"
    assert of_best(done, flat, split="train").seen_in_training == "trained on"
    shutil.copy(flat / "red/000.png", flat / "red/new.png")
    assert of_best(done, flat).seen_in_training == "validated on"
    said: list[Event] = []
    assert of_best(done, flat, split="train", report=said.append).seen_in_training is None
    (finding,) = (event.finding for event in of(said, Found))
    assert str(finding) == (
        f"{flat}: the model was trained with --data {flat} too, and may have seen some of these images; "
        "the accuracy says little then: measure on images kept apart"
    )


def test_without_validation_all_of_a_flat_folder_was_trained_on(tmp_path: Path) -> None:
    flat = draw(tmp_path / "flat", dict.fromkeys(COLOURS, 4))
    done = run(tiny(flat, out=str(tmp_path / "run"), val_split=0))
    said: list[Event] = []
    report = of_best(done, flat, report=said.append)
    assert (report.split, report.images, report.seen_in_training) == ("all", 12, "trained on")
    (finding,) = (event.finding for event in of(said, Found))
    assert (finding.severity, str(finding)) == (
        "warning",
        f"{flat}: the model was trained on these images; "
        "the accuracy says little about others: measure on images kept apart",
    )


# Events and errors ---------------------------------------------------------------------------------------------------


def test_progress_is_reported(trained: Run, pictures: Path) -> None:
    said: list[Event] = []
    of_best(trained, pictures, batch_size=5, report=said.append)
    step = of(said, Stepped)[-1]
    assert (step.epoch, step.phase, step.batch, step.batches, step.loss) == (0, "val", 3, 3, None)


def test_what_cannot_be_evaluated(trained: Run, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no test images; type --split train or --split val") as caught:
        of_best(trained, pictures, split="test")
    assert caught.value.exit_code == Exit.DATA
    with pytest.raises(UsageError, match="no such folder or data set"):
        of_best(trained, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="--amp needs CUDA"):
        of_best(trained, pictures, amp=True)
    with pytest.raises(UsageError, match="no such file"):
        evaluate(str(pictures), str(tmp_path / "none.pt"), device="cpu")
    draw(tmp_path, {"test/violet": 2})
    with pytest.raises(DataError, match=r"unknown class 'violet'.*the model knows 'blue', 'green', 'red'"):
        of_best(trained, tmp_path)


def test_a_network_that_answers_nan_is_refused(trained: Run, pictures: Path, tmp_path: Path) -> None:
    """Finite weights can overflow."""
    loaded = checkpoint.load(trained.folder / "best.pt")
    huge = {name: tensor * 1e38 for name, tensor in loaded.model.items()}
    checkpoint.save(tmp_path / "huge.pt", Checkpoint(loaded.card, huge, loaded.holdout))
    with pytest.raises(NonFiniteError, match="NaN or infinite") as caught:
        evaluate(str(pictures), str(tmp_path / "huge.pt"), device="cpu", workers=0)
    assert caught.value.exit_code == Exit.CHECKPOINT
