"""Evaluation gives the accuracy that training stored, and nothing about batches or workers changes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import COLOURS, Run, codes, draw, of, run, tiny
from torch import nn

from imgcls import checkpoint
from imgcls.checkpoint import Checkpoint
from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing
from imgcls.data.loaders import Batches
from imgcls.engine import evaluate as evaluate_module
from imgcls.engine.evaluate import count, evaluate
from imgcls.errors import CheckpointError, DataError, Exit, UsageError
from imgcls.events import Event, Said, Stepped
from imgcls.schema import EvalReport, Preprocess

pytest_plugins = ("small_runs",)

ASKED: dict[str, Any] = {"epochs": 3, "lr": 2e-3, "augment": "standard"}


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a folder with val/."""
    return run(tiny(pictures, out=str(tmp_path_factory.mktemp("trained")), **ASKED))


def of_best(done: Run, data: Path, **asked: Any) -> EvalReport:
    options: dict[str, Any] = {"device": "cpu", "workers": 0, "batch_size": 8}
    return evaluate(str(data), str(done.folder / "best.pt"), **options | asked)


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
    import imgcls

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
        alone = of_one_image(trained, Path(path))
        assert alone.confusion[classes.index(truth)][classes.index(prediction.class_name)] == 1
    report = of_best(trained, pictures, split="val")
    assert report.confusion == tuple(map(tuple, confusion.tolist()))
    assert report.loss == pytest.approx(np.mean(losses), abs=1e-5)


def of_one_image(done: Run, path: Path) -> EvalReport:
    """Evaluate a data set of this picture alone."""
    loaded = checkpoint.load(done.folder / "best.pt")
    from PIL import Image

    from imgcls.models.build import build_model

    pixels = np.asarray(Image.open(path))[None]
    labels = np.array([loaded.card.classes.index(path.parent.name)], dtype=np.int64)
    listing = Listing("one", ArrayImages.of("one", pixels), labels, loaded.card.classes)
    batches = Batches(listing, loaded.card.preprocess, batch_size=1)
    return count(build_model(loaded.card, loaded.model), batches, listing.classes, torch.device("cpu"), split="one")


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


def test_labels_go_by_name(trained: Run, pictures: Path, tmp_path: Path) -> None:
    """A split that lacks the first class must not shift the others."""
    whole = of_best(trained, pictures)
    shutil.copytree(pictures / "val" / "red", tmp_path / "test" / "red")
    report = of_best(trained, tmp_path)
    assert report.confusion[2] == whole.confusion[2]
    assert report.accuracy == whole.per_class[2].accuracy


def test_progress_is_reported(trained: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "REPORT_SECONDS", -1)
    said: list[Event] = []
    of_best(trained, pictures, batch_size=5, report=said.append)
    steps = of(said, Stepped)
    assert [(step.phase, step.batch, step.batches) for step in steps] == [("val", 1, 3), ("val", 2, 3), ("val", 3, 3)]


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
    with pytest.raises(CheckpointError, match="NaN or infinite") as caught:
        evaluate(str(pictures), str(tmp_path / "huge.pt"), device="cpu", workers=0)
    assert caught.value.exit_code == Exit.CHECKPOINT


def test_counting_leaves_the_model_in_eval_mode_and_stops_when_told(seven: Path) -> None:
    pixels = np.zeros((9, 8, 8, 3), dtype=np.uint8)
    listing = Listing("x", ArrayImages.of("x", pixels), np.arange(9) % 2, ("a", "b"))
    batches = Batches(listing, Preprocess(size=8, resize=8), batch_size=2)

    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.training
            assert torch.is_inference_mode_enabled()
            return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)

    model = Constant().train()
    report = count(model, batches, ("a", "b"), torch.device("cpu"), split="val", most_batches=2)
    assert not model.training
    assert (report.images, report.accuracy) == (4, 0.5)
