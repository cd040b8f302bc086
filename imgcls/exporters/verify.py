"""Runs an exported file in a process of its own: `python -m imgcls.exporters.verify FORMAT FILE IMAGES ANSWERS`.

Knows the file alone, not the checkpoint. Reads images uint8 [n, S, S, 3] from IMAGES (.npy) and writes to ANSWERS
(.npz) the logits float32 [n, classes] and the model card found in the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from imgcls.inference.model import Logits, Model
from imgcls.pixels.decode import Pixels
from imgcls.registry import EXPORTERS, resolve

BATCHES = (1, 2, 7)  # sizes in turn, because a batch size may have been frozen into the graph


def answers(model: Model, images: Pixels) -> Logits:
    """Run a model over images in batches of all sizes of `BATCHES`, in turn: logits float32 [n, classes]."""
    found, start, turn = [], 0, 0
    while start < len(images):
        size = BATCHES[turn % len(BATCHES)]
        batch = images[start : start + size]
        logits = model.logits(batch)
        if logits.shape != (len(batch), len(model.card.classes)):
            raise ValueError(f"{len(batch)} images gave logits {list(logits.shape)}")
        found.append(logits)
        start, turn = start + size, turn + 1
    return np.concatenate(found)


def main(format: str, file: str, images: str, target: str) -> None:
    """Load, run, and write the answers."""
    model: Model = resolve(f"{EXPORTERS[format]}:read")(Path(file))
    logits = answers(model, np.load(images))
    np.savez(target, logits=logits, card=json.dumps(model.card.to_dict()))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
