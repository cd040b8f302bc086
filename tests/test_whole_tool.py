"""The promises that cross all parts, on real photographs: one answer everywhere, and the same as torchvision's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torchvision import transforms
from typer.testing import CliRunner, Result

from imgcls import checkpoint
from imgcls.cli.app import app


def done(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def resnet(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pt of a resnet18 after one short epoch on photographs of ants and bees."""
    out = tmp_path_factory.mktemp("photographs-run") / "run"
    options = ("--no-pretrained", "--epochs", 1, "--batch-size", 16, "--workers", 1)
    done("train", "--data", photographs, *options, "--size", 96, "--out", out)
    return out / "best.pt"


def test_the_stray_gif_is_ignored_and_said(photographs: Path) -> None:
    result = done("train", "--data", photographs, "--arch", "simple-cnn", "--size", 32, "--batch-size", 8, "--dry-run")
    assert "1 file ignored (.gif 1); convert .gif to .jpg or .png" in result.stderr
    assert "train 244, val/ 153; 2 classes: ants, bees" in result.stderr


def test_predict_evaluate_and_the_stored_accuracy_agree(photographs: Path, resnet: Path, tmp_path: Path) -> None:
    rows = [
        json.loads(line)
        for line in done("predict", photographs / "val", "--format", "jsonl", "--ckpt", resnet).stdout.splitlines()
    ]
    right = sum(row["class"] == Path(row["path"]).parent.name for row in rows)
    report = tmp_path / "report.json"
    done("evaluate", "--data", photographs, "--split", "val", "--ckpt", resnet, "--json", report)
    assert len(rows) == 153
    assert right / 153 == json.loads(report.read_text())["accuracy"]
    assert right / 153 == checkpoint.load(resnet).card.metrics["accuracy"]


def test_torchvision_with_the_same_weights_gives_the_same_probabilities(photographs: Path, resnet: Path) -> None:
    loaded = checkpoint.load(resnet)
    network = torchvision.models.resnet18(num_classes=2)
    network.load_state_dict(loaded.model)
    network.eval()
    recipe = loaded.card.preprocess
    transform = transforms.Compose(
        [
            transforms.Resize(recipe.resize),
            transforms.CenterCrop(recipe.size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    paths = sorted((photographs / "val").rglob("*.jpg"))[::10]
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(transform(image.convert("RGB")))
    with torch.inference_mode():
        theirs = network(torch.stack(images)).softmax(1)
    ours = [
        json.loads(line)
        for line in done("predict", *paths, "--top-k", 2, "--format", "jsonl", "--ckpt", resnet).stdout.splitlines()
    ]
    for row, expected in zip(ours, theirs.tolist(), strict=True):
        probabilities = {score["class"]: score["confidence"] for score in row["top"]}
        assert [probabilities["ants"], probabilities["bees"]] == pytest.approx(expected, abs=1e-5)
