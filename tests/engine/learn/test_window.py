"""The batches of one optimizer step are worth one whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from carrying import shows
from small_runs import Seen, built, close, tiny

from imgcls.engine.learn.window import windows

pytest_plugins = ("small_runs",)


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
