"""Image classification on PyTorch: train, evaluate, predict. The public API; nothing heavy is imported until used.

import imgcls
for prediction in imgcls.predict("photographs/", "best.pt"):
    print(prediction.path, prediction.class_name, prediction.confidence)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["TrainConfig", "__version__", "evaluate", "export", "load", "predict", "train"]

if TYPE_CHECKING:
    from imgcls.config import TrainConfig
    from imgcls.engine.assess.evaluate import evaluate
    from imgcls.engine.train import train
    from imgcls.exporters.export import export
    from imgcls.inference.model import load, predict

_HOMES = {
    "TrainConfig": "imgcls.config:TrainConfig",
    "evaluate": "imgcls.engine.assess.evaluate:evaluate",
    "export": "imgcls.exporters.export:export",
    "load": "imgcls.inference.model:load",
    "predict": "imgcls.inference.model:predict",
    "train": "imgcls.engine.train:train",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from imgcls.registry import resolve

        return resolve(_HOMES[name])
    raise AttributeError(f"module 'imgcls' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
