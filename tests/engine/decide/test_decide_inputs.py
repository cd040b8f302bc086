"""What is decided before training, and that each decision comes with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import built, draw, tiny

from imgcls import registry
from imgcls.checkpoint import Checkpoint
from imgcls.data.images import ArrayImages, FileImages
from imgcls.data.listing import Listing, Source
from imgcls.distributed import World
from imgcls.engine.decide import inputs as inputs_module
from imgcls.engine.decide.build import build, choose_compute
from imgcls.engine.decide.decided import Decided, DecidedInputs, choices
from imgcls.engine.decide.inputs import STATISTICS, Inputs, decide_inputs, training_batches, validation_batches
from imgcls.errors import UsageError
from imgcls.models import families, pretrained
from imgcls.models.classifier import build_network
from imgcls.models.pretrained import Start
from imgcls.pixels.decode import decode
from imgcls.schema import IMAGENET_MEAN, IMAGENET_STD, Choice, Pretrained

pytest_plugins = ("small_runs",)


def of_sizes(root: Path, *sizes: tuple[int, int]) -> Path:
    """Draw the same pictures of these sizes (width, height) for two classes."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number, size in enumerate(sizes):
            Image.new("RGB", size, (90, 120, 150)).save(root / name / f"{number}.png")
    return root


def prepared(data: Path | str, **asked: Any) -> Inputs:
    return decide_inputs(tiny(data, **{"pretrained": False} | asked))


def choice(name: str, decided: Decided | DecidedInputs) -> Choice[Any]:
    (found,) = [each for each in choices(decided) if each.name == name]
    return found


# Size -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "arch", "size", "reason"),
    [
        (((16, 16), (16, 16)), "small-cnn", 16, "the images' median longer side is 16 px"),
        (((20, 48), (48, 30), (48, 48)), "small-cnn", 48, "the images' median longer side is 48 px"),
        (((30, 30), (32, 20), (500, 300)), "small-cnn", 32, "the images' median longer side is 32 px"),
        (((64, 64),), "small-cnn", 64, "the images' median longer side is 64 px"),
        (((65, 20),), "resnet18", 224, "resnet18's own; the images' median longer side is 65 px"),
        (((65, 20),), "small-cnn", 65, "the images' median longer side is 65 px"),  # no weights, no size of its own
        (((96, 96), (70, 96), (96, 72)), "small-cnn", 96, "the images' median longer side is 96 px"),
        (((128, 100),), "resnet9", 128, "the images' median longer side is 128 px"),
        (((128, 128),), "efficientnet_b1", 240, "efficientnet_b1's own; the images' median longer side is 128 px"),
        (((129, 20),), "small-cnn", 224, "small-cnn's own; the images' median longer side is 129 px"),
        (((300, 200),), "efficientnet_b1", 240, "efficientnet_b1's own; the images' median longer side is 300 px"),
        (((10, 10),), "lenet", 224, "lenet's own; the images have 10 px, but lenet needs at least 16"),
        (((60, 60),), "vit_b_16", 224, "vit_b_16's own; the images have 60 px, but vit_b_16 needs a multiple of 16"),
    ],
)
def test_the_automatic_size(tmp_path: Path, sizes: Any, arch: str, size: int, reason: str) -> None:
    found = prepared(of_sizes(tmp_path, *sizes), arch=arch, val_split=0 if len(sizes) == 1 else 0.2)
    assert choice("size", found.decided) == Choice("size", size, reason)
    assert found.preprocess.size == size


def test_a_size_that_was_asked_for(tmp_path: Path) -> None:
    found = prepared(of_sizes(tmp_path, (16, 16), (16, 16)), size=100)
    assert choice("size", found.decided) == Choice("size", 100, "as asked")
    with pytest.raises(UsageError, match="--size 100: vit_b_16 needs a multiple of 16"):
        prepared(tmp_path, arch="vit_b_16", size=100)


def test_the_stem_is_small_up_to_40_px(tmp_path: Path) -> None:
    data = of_sizes(tmp_path, (16, 16), (16, 16))
    for size, stem, reason in ((40, "small", "input up to 40 px"), (41, "standard", "input above 40 px")):
        run = built(tiny(data, arch="resnet18", size=size, pretrained=False)).run
        assert run.card.arch_options["stem"] == stem
        assert Choice("stem", stem, reason) in choices(run.decided)
    run = built(tiny(data, arch="lenet", size=40)).run
    assert Choice("stem", "standard", "the architecture's own") in choices(run.decided)


def test_pretrained_weights_keep_their_stem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = build_network("resnet18", 1000, 32).state_dict()
    start = Start(Pretrained(asked="yes", used="torchvision ResNet18", reason="cached"), state=state)
    monkeypatch.setattr(pretrained, "choose", lambda arch, asked, size, say: start)
    config = tiny(of_sizes(tmp_path, (16, 16), (16, 16)), arch="resnet18")
    run, _, _, said = build(config, choose_compute(config, World()), decide_inputs(config))
    assert Choice("stem", "standard", "that of the weights") in choices(run.decided)
    assert said == "starting from torchvision ResNet18: new head for 2 classes"


# Preprocessing --------------------------------------------------------------------------------------------------------


def test_without_weights_it_is_imagenets_with_the_networks_own_crop(tmp_path: Path) -> None:
    data = of_sizes(tmp_path, (300, 200), (300, 200))
    found = prepared(data, arch="small-cnn").preprocess
    assert (found.size, found.resize, found.interpolation) == (224, 256, "bilinear")
    assert (found.mean, found.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert choice("mean, std", prepared(data).decided).reason == "no pretrained weights, no known data set"
    bicubic = prepared(data, arch="efficientnet_b1").preprocess  # its recipe: resize 255, crop 240, bilinear
    assert (bicubic.size, bicubic.resize) == (240, 255)
    swin = prepared(data, arch="swin_t").preprocess
    assert (swin.resize, swin.interpolation) == (232, "bicubic")


def test_small_inputs_are_not_cropped(tmp_path: Path) -> None:
    data = of_sizes(tmp_path, (300, 200), (300, 200))
    for asked in ({"size": 64}, {"resize": "squash"}, {"resize": "pad"}):
        found = prepared(data, **asked).preprocess
        assert found.resize == found.size
    assert prepared(data, size=65).preprocess.resize == round(65 * 256 / 224)


def test_images_whose_own_size_is_taken_are_used_whole(tmp_path: Path) -> None:
    data = of_sizes(tmp_path, (96, 80), (96, 96))
    found = prepared(data, arch="small-cnn").preprocess
    assert (found.size, found.resize) == (96, 96)
    assert prepared(data, arch="small-cnn", size=96).preprocess.resize == round(96 * 256 / 224)  # of larger ones, maybe
    assert prepared(data, arch="resnet18").preprocess.resize == 256


def test_with_weights_it_is_that_of_their_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = families.published("efficientnet_v2_l")
    assert recipe is not None
    start = Start(Pretrained(asked="yes", used="torchvision X", reason="cached"), state={})
    monkeypatch.setattr(pretrained, "choose", lambda arch, asked, size, say: start)
    found = prepared(of_sizes(tmp_path, (300, 200), (300, 200)), arch="efficientnet_v2_l", pretrained=True)
    assert (found.preprocess.size, found.preprocess.resize) == (480, 480)
    assert (found.preprocess.mean, found.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert found.preprocess.interpolation == "bicubic"
    assert choice("mean, std", found.decided) == Choice("mean, std", recipe.name, "those of the weights")
    assert choice("weights", found.decided) == Choice("weights", "torchvision X", "cached")


def fake(root: str) -> Source:
    """Stand in for CIFAR-10."""
    listing = Listing("x", ArrayImages.of("x", np.zeros((8, 32, 32, 3), dtype=np.uint8)), np.arange(8) % 2, ("a", "b"))
    return Source(f"cifar10 in {root}", {"train": lambda: listing}, dataset="cifar10")


def test_a_data_set_by_name_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.DATASETS, "cifar10", f"{__name__}:fake")
    found = prepared("cifar10")
    assert (found.preprocess.mean, found.preprocess.std) == STATISTICS["cifar10"]
    assert choice("mean, std", found.decided) == Choice("mean, std", "cifar10's", "a data set with known ones")
    assert found.preprocess.size == 32


def test_known_statistics_are_those_of_the_training_images(cifar10_files: Iterator[tuple[str, bytes]]) -> None:
    """Of CIFAR-10's, every 40th image; JPEG files lose little of them."""
    assert set(STATISTICS) <= set(registry.DATASETS)
    training = (content for name, content in cifar10_files if "/train/" in name)
    pixels = np.stack([decode(content) for content in islice(training, 0, None, 40)]) / 255
    assert len(pixels) == 1250
    found = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    assert np.array(STATISTICS["cifar10"]) == pytest.approx(np.array(found), abs=0.01)


# Batches --------------------------------------------------------------------------------------------------------------


def test_training_batches_are_shuffled_and_augmented_and_validation_is_not(pictures: Path) -> None:
    config = tiny(pictures, augment="standard", batch_size=24)
    found = decide_inputs(config)
    first, again, second = (next(training_batches(found, config).epoch(epoch)) for epoch in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, second.images)
    assert first.labels.tolist() != sorted(first.labels.tolist())
    validation = validation_batches(found, config)
    assert validation is not None
    one, other = (next(validation.epoch(epoch)) for epoch in (1, 2))
    assert torch.equal(one.images, other.images)
    assert one.labels.tolist() == sorted(one.labels.tolist())


def test_no_validation_images_no_validation_batches(pictures: Path) -> None:
    config = tiny(pictures / "train", val_split=0)
    assert validation_batches(decide_inputs(config), config) is None


def test_a_val_split_beside_validation_images_is_said_to_be_unused(pictures: Path) -> None:
    for share in (0.3, 0.0):
        (note,) = decide_inputs(tiny(pictures, val_split=share)).splits.findings
        assert str(note) == f"--val-split {share:g} is not used; the data has validation images of its own"
    assert decide_inputs(tiny(pictures)).splits.findings == ()
    assert decide_inputs(tiny(pictures / "train", val_split=0.3)).splits.findings == ()
    assert decide_inputs(tiny(pictures / "train", val_split=0)).splits.findings == ()


def test_every_choice_has_a_reason(pictures: Path) -> None:
    found = decide_inputs(tiny(pictures))
    assert {each.name for each in choices(found.decided)} == {"size", "weights", "mean, std", "workers"}
    assert all(each.reason for each in choices(found.decided))


def test_the_decisions_of_a_resumed_run_stand(pictures: Path, tmp_path: Path) -> None:
    b = built(tiny(pictures, size=20))
    last = Checkpoint(b.run.card, b.model.network.state_dict(), b.run.inputs.splits.holdout)
    assert decide_inputs(tiny(pictures), last).preprocess == b.run.card.preprocess
    assert decide_inputs(tiny(pictures)).preprocess.size == 16


def test_only_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of a sample only: a folder of a million files must not be opened file by file."""
    data = draw(tmp_path, {"a": 12, "b": 12})
    monkeypatch.setattr(inputs_module, "HEADERS", 5)
    opened: list[int] = []
    size = FileImages.size

    def watched(images: FileImages, index: int) -> tuple[int, int]:
        opened.append(index)
        return size(images, index)

    monkeypatch.setattr(FileImages, "size", watched)
    monkeypatch.setattr(FileImages, "load", lambda images, index: pytest.fail("decoded"))
    assert decide_inputs(tiny(data)).preprocess.size == 16
    assert len(opened) == 5


# Findings -------------------------------------------------------------------------------------------------------------


def test_training_images_of_which_little_is_left_are_found(tmp_path: Path) -> None:
    data = of_sizes(tmp_path / "data", (16, 16), (16, 16))
    assert [finding.code for finding in prepared(data).splits.findings] == []
    for name in "ab":
        Image.fromarray(np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)).save(data / name / "2.png")
    (found,) = prepared(data, val_split=0).splits.findings
    assert (found.code, found.severity) == ("dim-images", "warning")
    assert str(found).startswith("2 of 6 images that were looked at have more than 8 bits per channel and come out ")
    assert found.paths == (str(data / "a/2.png"), str(data / "b/2.png"))
