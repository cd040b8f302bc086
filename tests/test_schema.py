"""The plain values that travel in checkpoints and to scripts."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from imgcls.report import ClassReport, Confused, EvalReport
from imgcls.schema import Choice, Finding, ModelCard, Prediction, Preprocess, Pretrained, Score

CARD = ModelCard(
    arch="lenet",
    arch_options={"size": 32},
    classes=("ant", "bee"),
    preprocess=Preprocess(size=32, resize=36, rule="pad", interpolation="bicubic", mean=(0.1, 0.2, 0.3)),
    pretrained=Pretrained(asked="auto", used=None, reason="lenet has no published weights"),
    metrics={"held_out": True, "images": 10, "accuracy": 0.9, "accuracy_interval": [0.6, 0.98], "loss": 0.5},
    epoch=3,
    config={"epochs": 3},
    data_fingerprint="abc",
    imgcls_version="0.1.0",
)


AVERAGES = [f"{kind}_{rate}" for kind in ("macro", "weighted") for rate in ("precision", "recall", "f1")]


def test_a_model_card_survives_json() -> None:
    """ONNX metadata holds it as JSON, a checkpoint as plain values."""
    assert ModelCard.from_dict(json.loads(json.dumps(CARD.to_dict()))) == CARD


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metrics", {"accuracy": 0.9}),
        ("metrics", CARD.metrics | {"accuracy": "x"}),
        ("metrics", CARD.metrics | {"accuracy_interval": [0.5]}),
        ("classes", []),
        ("classes", ["ant", 3]),
        ("classes", ["ant", "\ud800"]),
        ("run", {"draws": "2"}),
        ("run", {"draws": [2]}),
        ("run", {"draws": [{"version": "2", "from_epoch": 1}]}),
    ],
)
def test_a_forged_card_is_refused_before_its_values_are_used(field: str, value: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        ModelCard.from_dict(CARD.to_dict() | {field: value})


def test_a_class_may_be_called_like_any_folder() -> None:
    names = ["ant\udcff", "3", "a\tb", "عربى"]  # the first is a byte that is no UTF-8
    assert ModelCard.from_dict(CARD.to_dict() | {"classes": names}).classes == tuple(names)


@pytest.mark.parametrize("field", ["arch", "classes", "preprocess", "pretrained", "format"])
def test_a_card_with_a_missing_part_is_no_card(field: str) -> None:
    values = CARD.to_dict()
    del values[field]
    with pytest.raises(KeyError):
        ModelCard.from_dict(values)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": 5000, "resize": 5000},
        {"resize": 16},  # smaller than the crop
        {"resize": 100_000},
        {"rule": "zoom"},
        {"interpolation": "magic"},
        {"decode": "half"},
        {"colour": "grey"},
        {"exif": False},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, math.nan)},
        {"std": (0.0, 1.0, 1.0)},
        {"std": (1.0, math.nan, 1.0)},
        {"size": "32"},
        {"surprise": 1},
    ],
)
def test_preprocessing_that_cannot_be_done_is_refused(change: dict[str, Any]) -> None:
    values = CARD.to_dict()
    values["preprocess"] = asdict(CARD.preprocess) | change
    with pytest.raises((ValueError, TypeError)):
        ModelCard.from_dict(values)


def test_a_card_says_how_its_images_are_decoded() -> None:
    scaled = replace(CARD, preprocess=replace(CARD.preprocess, decode="scaled"))
    assert ModelCard.from_dict(json.loads(json.dumps(scaled.to_dict()))) == scaled
    assert (scaled.preprocess.shorter, CARD.preprocess.shorter) == (36, None)


def test_a_card_from_before_there_was_a_choice_decodes_in_full() -> None:
    values = json.loads(json.dumps(CARD.to_dict()))
    assert values["preprocess"]["decode"] == "full"
    assert ModelCard.from_dict(values) == CARD


def test_fill_is_the_mean_colour() -> None:
    assert Preprocess(size=8, resize=8, mean=(0.0, 0.5, 1.0)).fill == (0, 128, 255)


def test_preprocessing_describes_itself() -> None:
    assert str(Preprocess(size=224, resize=256)).startswith("resize 256 (bilinear), centre crop 224; mean 0.485, 0.456")
    assert "squash to 32x32" in str(Preprocess(size=32, resize=32, rule="squash"))
    assert "fit into 32x32 (bilinear), pad" in str(Preprocess(size=32, resize=32, rule="pad"))
    scaled = str(Preprocess(size=32, resize=32, decode="scaled"))
    assert scaled.startswith("decode at reduced size, resize 32 (bilinear)")


def test_a_prediction_has_the_stable_fields() -> None:
    answer = Prediction(path="a.jpg", class_name="ant", confidence=0.9, top=(Score("ant", 0.9), Score("bee", 0.1)))
    assert answer.to_dict() == {
        "path": "a.jpg",
        "class": "ant",
        "confidence": 0.9,
        "top": [{"class": "ant", "confidence": 0.9}, {"class": "bee", "confidence": 0.1}],
        "error": None,
    }
    failed = Prediction(path="b.jpg", error="b.jpg: no such file")
    assert failed.to_dict() == {
        "path": "b.jpg",
        "class": None,
        "confidence": None,
        "top": None,
        "error": "b.jpg: no such file",
    }
    assert Prediction(path="c.jpg", below_threshold=True).to_dict()["below_threshold"] is True


def test_a_report_has_the_stable_fields() -> None:
    row = ClassReport(
        class_name="ant", support=0, accuracy=None, accuracy_interval=None, precision=None, recall=None, f1=None
    )
    report = EvalReport(
        split="val",
        images=0,
        loss=0.5,
        accuracy=0.5,
        accuracy_interval=(0.4, 0.6),
        top5=None,
        **dict.fromkeys(AVERAGES, 0.5),  # type: ignore[arg-type]
        per_class=(row,),
        classes=("ant",),
        confusion=((0,),),
        most_confused=(Confused(class_name="ant", predicted="bee", images=1, share=0.5),),
    )
    values = json.loads(json.dumps(report.to_dict()))
    assert {"split", "images", "loss", "accuracy", "accuracy_interval", "top5", "binary", *AVERAGES} <= set(values)
    assert set(values["per_class"][0]) >= {"class", "support", "accuracy", "precision", "recall", "f1"}
    assert values["confusion"] == [[0]]
    assert values["most_confused"] == [{"class": "ant", "predicted": "bee", "images": 1, "share": 0.5}]


def test_a_finding_reads_as_one_sentence() -> None:
    assert str(Finding("x", "note", "3 files ignored", "convert them")) == "3 files ignored; convert them"


def test_a_computed_number_is_shown_with_three_digits_and_one_that_was_asked_for_as_typed() -> None:
    assert Choice("lr", 0.1 * 112 / 64, "SGD from scratch: 0.1 x 112/64").shown == "0.175"
    assert Choice("lr", 0.01234, "as asked").shown == "0.01234"
    assert Choice("lr", 100.0, "as asked").shown == "100"
    assert Choice("size", 224, "resnet18's own").shown == "224"
