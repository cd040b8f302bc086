"""One of each family of networks is exported to ONNX and gives the checkpoint's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES
from torch import nn

from imgcls import checkpoint
from imgcls.exporters.export import comparison_images, export
from imgcls.exporters.verify import BATCHES
from imgcls.inference.onnx import load
from imgcls.models.classifier import build_model
from imgcls.models.surgery import head
from imgcls.schema import ModelCard, Preprocess, Pretrained

SEEDS = {"small-cnn": 16, "bn-cnn": 16, "simple-cnn": 16, "lenet": 16}


def settled(arch: str, size: int) -> checkpoint.Checkpoint:
    """Return a checkpoint of fresh weights that behaves like a trained one.

    Its BatchNorm statistics are those of the images that will be compared, and its logits spread by about 0.5. Fresh
    weights alone give deep networks logits that are all the same, or so large that rounding shows: 7000 with
    efficientnet_b0, and 50 between float32 and float64.
    """
    torch.manual_seed(0)
    card = ModelCard(
        arch=arch,
        arch_options={},
        classes=tuple("abcdefg"),
        preprocess=Preprocess(size=size, resize=size),
        pretrained=Pretrained(asked="no", used=None, reason="--no-pretrained"),
    )
    model = build_model(card)
    images = torch.from_numpy(comparison_images(None, card.preprocess)[0]).permute(0, 3, 1, 2)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    layer = head(model.network)[1]
    nn.init.normal_(layer.weight)  # vision transformers begin with zeros
    with torch.no_grad():
        model.train()(images)
        spread = model.eval()(images).std(0).mean()
        for parameter in layer.parameters():
            parameter.mul_(0.5 / spread)
    return checkpoint.Checkpoint(card, model.network.state_dict(), np.empty(0, dtype=np.int64))


@pytest.mark.parametrize(("arch", "size"), (SEEDS | FAMILIES).items())
def test_onnx_agrees_with_the_checkpoint_and_tells_images_apart(arch: str, size: int, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best.pt", settled(arch, size))
    done = export(str(tmp_path / "best.pt"), "onnx")
    assert (done.batch_sizes, done.images) == (BATCHES, 20)
    assert done.probability_difference < 1e-4
    images, _ = comparison_images(None, Preprocess(size=size, resize=size))
    assert load(done.path).logits(images).std(0).mean() == pytest.approx(0.5, abs=0.1)
