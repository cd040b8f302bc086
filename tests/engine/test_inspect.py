"""What `inspect-batch` shows is the batch that training would see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import Seen, draw, run, tiny

from imgcls.config import InspectConfig
from imgcls.engine.inspect import Inspection, inspect
from imgcls.errors import DataError
from imgcls.schema import IMAGENET_MEAN, IMAGENET_STD
from imgcls.settings import from_dict

pytest_plugins = ("small_runs",)


def inspected(data: Path, split: str = "train", **asked: Any) -> Inspection:
    small = {"arch": "simple-cnn", "batch_size": 8, "workers": 0, "augment": "none"}
    return inspect(from_dict(InspectConfig, small | {"data": str(data), "split": split} | asked))


def test_it_is_the_first_batch_of_training(pictures: Path, seen: Seen) -> None:
    asked: dict[str, Any] = {"augment": "strong", "rotate": 20, "color_jitter": 0.2, "seed": 3}
    run(tiny(pictures, **asked, dry_run=True))
    shown = inspected(pictures, **asked)
    assert np.array_equal(shown.images, seen.train[0].permute(0, 2, 3, 1).numpy())
    assert np.array_equal(inspected(pictures, "val", **asked).images, seen.val[0].permute(0, 2, 3, 1).numpy())


def test_the_numbers_are_those_of_the_batch(pictures: Path) -> None:
    shown = inspected(pictures)
    images, values = shown.images, shown.values
    assert values["images"]["shape"] == [8, 3, 16, 16]
    assert values["images"]["dtype"] == "uint8"
    assert (values["images"]["min"], values["images"]["max"]) == (images.min(), images.max())
    assert values["images"]["mean"] == pytest.approx(images.mean((0, 1, 2)) / 255)
    assert values["images"]["std"] == pytest.approx((images / 255).std((0, 1, 2)), rel=1e-3)
    normalized = (images / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert values["normalized"]["dtype"] == "float32"
    assert values["normalized"]["min"] == pytest.approx(normalized.min(), abs=1e-5)
    assert values["normalized"]["max"] == pytest.approx(normalized.max(), abs=1e-5)


def test_the_labels_are_names_and_numbers(pictures: Path) -> None:
    shown = inspected(pictures)
    labels = shown.values["labels"]
    assert (labels["shape"], labels["dtype"]) == ([8], "int64")
    assert shown.values["class_to_idx"] == {"blue": 0, "green": 1, "red": 2}
    assert [shown.values["class_to_idx"][name] for _, name in labels["first"]] == [
        label for label, _ in labels["first"]
    ]
    assert shown.labels == tuple(label for label, _ in labels["first"])
    for image, (_, name) in zip(shown.images, labels["first"], strict=True):  # the colour is that of its name
        red, green, blue = image.mean((0, 1))
        assert {"red": red, "green": green, "blue": blue}[name] == max(red, green, blue)


def test_what_was_decided_and_counted(pictures: Path) -> None:
    values = inspected(pictures, augment="light").values
    assert values["counts"]["train"] == {"blue": 8, "green": 8, "red": 8}
    assert values["counts"]["val"] == {"blue": 4, "green": 4, "red": 4}
    assert {choice["name"] for choice in values["decided"]} >= {"size", "weights", "mean, std"}
    assert values["augmentation"] == "light"
    assert inspected(pictures, "val", augment="light").values["augmentation"] == "none"
    assert values["preprocessing"].startswith("resize 16 (bilinear), centre crop 16")


def test_it_turns_into_json(pictures: Path) -> None:
    values = json.loads(json.dumps(inspected(pictures).to_dict()))
    assert values["findings"] == []
    assert values["split"] == "train"


def test_at_most_64_pictures_are_shown(tmp_path: Path) -> None:
    shown = inspected(draw(tmp_path, {"a": 50, "b": 50}, side=8), batch_size=70)
    assert len(shown.images) == len(shown.labels) == 64
    assert shown.values["images"]["shape"][0] == 70


def test_blank_images_are_found(pictures: Path, tmp_path: Path) -> None:
    """Pictures of one colour are a failed conversion; noisy ones are not."""
    assert inspected(pictures).findings == ()
    data = draw(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1})
    for number in (0, 1):
        Image.new("RGB", (16, 16), (200, 10, 10)).save(data / "train" / "dog" / f"{number:03d}.png")
    (finding,) = inspected(data).findings
    assert (finding.code, finding.severity) == ("blank-images", "warning")
    assert finding.message == "2 of 6 images in this batch show one colour only (class dog)"
    assert "look at the files" in finding.advice
    assert inspected(data, "val").findings == ()


def test_findings_about_the_data_are_shown_too(tmp_path: Path) -> None:
    data = draw(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 1})
    assert [finding.code for finding in inspected(data).findings] == ["class-without-images"]


def test_without_validation_images_there_is_no_such_batch(pictures: Path) -> None:
    with pytest.raises(DataError, match="no validation images; type --split train"):
        inspected(pictures / "train", "val", val_split=0)


@pytest.mark.parametrize("test", [{"test": 4}, {"test/unknown": 4}, {"test/cat": 0}])
def test_a_test_split_without_labels_does_not_stop_it(tmp_path: Path, test: dict[str, int]) -> None:
    data = draw(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1} | test)
    shown = inspected(data)
    assert list(shown.values["counts"]) == ["train", "val"]
    (finding,) = shown.findings
    assert (finding.code, finding.severity) == ("test-without-labels", "note")
    assert finding.message.startswith(f"{data}/test: ")
