"""The torch back end: a checkpoint becomes a function from images to logits that equals the trained network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import Run, built, run, tiny

from imgcls import registry
from imgcls.errors import CheckpointError, UsageError
from imgcls.inference.model import Model
from imgcls.inference.torch import load, with_tensors

pytest_plugins = ("small_runs",)


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With dropout and BatchNorm, which must be off when predicting."""
    return run(tiny(pictures, arch="bn-cnn", dropout=0.5, limit=8, out=str(tmp_path_factory.mktemp("trained"))))


def test_logits_equal_the_networks_own(trained: Run, pictures: Path) -> None:
    model = load(str(trained.folder / "best.pt"), "cpu", amp=False)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    logits = model.logits(pixels)
    assert logits.shape == (5, 3)
    assert logits.dtype == np.float32

    b = built(tiny(pictures, arch="bn-cnn"))
    b.model.network.load_state_dict(trained.weights("best.pt"))
    with torch.no_grad():
        expected = b.model.eval()(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())
    assert logits == pytest.approx(expected.numpy(), abs=1e-5)
    assert np.array_equal(logits, model.logits(pixels)), "nothing is dropped"


def test_an_image_gets_the_same_answer_in_any_company(trained: Run) -> None:
    model = load(str(trained.folder / "best.pt"), "cpu", amp=False)
    pixels = np.random.default_rng(1).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    together = model.logits(pixels)
    alone = np.concatenate([model.logits(image[None]) for image in pixels])
    assert together == pytest.approx(alone, abs=1e-5)


def test_several_threads_get_the_answers_that_one_gets(trained: Run) -> None:
    model = load(str(trained.folder / "best.pt"), "cpu", amp=False)
    generator = np.random.default_rng(2)
    batches = [generator.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8) for count in (1, 9, 3, 32, 2)] * 4
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(model.logits, batches))
    for found, batch in zip(together, batches, strict=True):
        assert np.array_equal(found, model.logits(batch))


def test_any_model_can_take_tensors(trained: Run) -> None:
    """A checkpoint's own network does, on its device; that of another back end is called with arrays."""
    model = load(str(trained.folder / "best.pt"), "cpu", amp=False)
    assert with_tensors(model) is model
    foreign = with_tensors(Model(model.card, model.logits, model.holdout, model.holdout_content))
    assert (foreign.card, foreign.device.type, foreign.amp) == (model.card, "cpu", None)
    pixels = np.random.default_rng(3).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with torch.inference_mode():
        for network in (model.network, foreign.network):
            assert np.array_equal(network(images).numpy(), model.logits(pixels))


def test_the_card_comes_along(trained: Run) -> None:
    model = load(str(trained.folder / "best.pt"), "auto", amp=False)
    assert model.card.classes == ("blue", "green", "red")
    assert model.card.arch_options["dropout"] == 0.5


def test_it_is_what_the_registry_names() -> None:
    assert registry.resolve(registry.BACKENDS[""]) is load


def test_what_cannot_be_loaded(trained: Run, tmp_path: Path) -> None:
    best = str(trained.folder / "best.pt")
    with pytest.raises(UsageError, match="--amp needs CUDA"):
        load(best, "cpu", amp=True)
    with pytest.raises(UsageError, match="--device tpu: not known"):
        load(best, "tpu", amp=False)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError):
        load(str(tmp_path / "text.pt"), "cpu", amp=False)
