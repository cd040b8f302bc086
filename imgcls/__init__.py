"""Image classification on PyTorch: train, evaluate, predict. The public API; nothing heavy is imported until used.

import imgcls
model = imgcls.load("best.pt")
for prediction in model.predict(["cat.jpg"]):
    print(prediction.path, prediction.class_name, prediction.confidence)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DataConfig", "TrainConfig", "__version__", "evaluate", "load", "train"]

if TYPE_CHECKING:
    from imgcls.config import DataConfig, TrainConfig
    from imgcls.engine.evaluate import evaluate
    from imgcls.engine.train import train
    from imgcls.inference.model import load

_HOMES = {
    "DataConfig": "imgcls.config:DataConfig",
    "TrainConfig": "imgcls.config:TrainConfig",
    "evaluate": "imgcls.engine.evaluate:evaluate",
    "load": "imgcls.inference.model:load",
    "train": "imgcls.engine.train:train",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from imgcls.registry import resolve

        return resolve(_HOMES[name])
    raise AttributeError(f"module 'imgcls' has no attribute '{name}'")
