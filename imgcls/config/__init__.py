"""The settings of every command, each stated once: name, type, default, sentence for `--help`, and bounds.

The command line, the Python API, `config.json` and the README are made from these types; `check_paths` finds what is
wrong with the paths in them before anything heavy is imported. A value of None means "auto" where a setting says so:
to be decided (with a printed reason) once the data and the machine are known.
"""

from imgcls.config.common import parse_device
from imgcls.config.train import (
    DIGIT_DATASETS,
    SMALL_IMAGE,
    BatchConfig,
    Decode,
    InspectConfig,
    ResizeRule,
    TrainConfig,
)
from imgcls.config.use import EvaluateConfig, ExportConfig, PredictConfig, SampleConfig

__all__ = [
    "DIGIT_DATASETS",
    "SMALL_IMAGE",
    "BatchConfig",
    "Decode",
    "EvaluateConfig",
    "ExportConfig",
    "InspectConfig",
    "PredictConfig",
    "ResizeRule",
    "SampleConfig",
    "TrainConfig",
    "parse_device",
]
