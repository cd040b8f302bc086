"""The average of the weights is what is validated and kept."""

from __future__ import annotations

from pathlib import Path

import torch
from carrying import shows
from small_runs import Seen, built, close, run, tiny
from torch.nn import functional as F

pytest_plugins = ("small_runs",)


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
