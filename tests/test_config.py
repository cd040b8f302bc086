"""Settings: stated once, checked once, with errors that name the flag and what is allowed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imgcls.config import (
    EvaluateConfig,
    ExportConfig,
    InspectConfig,
    PredictConfig,
    SampleConfig,
    TrainConfig,
)
from imgcls.errors import UsageError
from imgcls.settings import flag, from_dict, parse, settings, to_dict

CONFIGS = (TrainConfig, InspectConfig, EvaluateConfig, PredictConfig, ExportConfig, SampleConfig)
SETTINGS = {item.name: (item, hint) for item, hint in settings(TrainConfig)}


def refused(config_type: type[Any] = TrainConfig, **given: Any) -> str:
    """Return the one line that refuses these settings."""
    with pytest.raises(UsageError) as caught:
        from_dict(config_type, given)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("config_type", CONFIGS)
def test_every_setting_has_a_help_sentence(config_type: type[Any]) -> None:
    for item, _ in settings(config_type):
        text, auto, unset = (item.metadata[name] for name in ("help", "auto", "unset"))
        assert text and text[0] != " "
        assert text.endswith("."), text
        assert (item.default is None) == bool(auto or unset), "None says what it means"
        assert not (auto and unset)


def test_the_documented_options_all_exist() -> None:
    documented = """
        data arch size resize augment rotate color-jitter flip alternate-flip cutout decode batch-size val-split
        seed workers limit
        pretrained weights freeze-epochs stem dropout epochs optimizer lr momentum nesterov weight-decay schedule
        warmup-epochs label-smoothing class-weights mixup cutmix accumulate clip-grad amp ema deterministic
        cache compile channels-last sync-bn monitor early-stop out resume overwrite time-limit save-every
        dry-run tensorboard device
    """
    assert sorted(flag(item) for item, _ in SETTINGS.values()) == sorted(f"--{n}" for n in documented.split())


def test_the_defaults_are_the_documented_ones() -> None:
    run = TrainConfig()
    assert (run.arch, run.batch_size, run.val_split, run.seed) == ("resnet18", 64, 0.2, 0)
    assert (run.augment, run.resize, run.size, run.workers) == ("standard", "crop", None, None)
    assert (run.epochs, run.optimizer, run.lr, run.momentum, run.weight_decay) == (20, "adamw", None, 0.9, 1e-4)
    assert (run.schedule, run.accumulate, run.monitor, run.stem, run.device) == (
        *("cosine", 1, "val-acc", "auto", "auto"),
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "5", 5),
        ("lr", "1e-3", 0.001),
        ("lr", "auto", None),
        ("size", "auto", None),
        ("size", "64", 64),
        ("freeze_epochs", "all", "all"),
        ("freeze_epochs", "3", 3),
        ("optimizer", "sgd", "sgd"),
        ("stem", "auto", "auto"),  # a word of its own here, not "to be decided"
        ("device", "cuda:1", "cuda:1"),
        ("out", "runs/a", "runs/a"),
    ],
)
def test_parse_turns_text_into_a_value(name: str, text: str, value: Any) -> None:
    parsed = parse(*SETTINGS[name], text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("epochs", "ten", "--epochs ten: needs a whole number"),
        ("epochs", "2.5", "--epochs 2.5: needs a whole number"),
        ("epochs", "auto", "--epochs auto: needs a whole number"),
        ("lr", "fast", "--lr fast: needs a number or auto"),
        ("freeze_epochs", "al", "--freeze-epochs al: needs a whole number or all"),
        ("optimizer", "adamww", "--optimizer adamww: not known (did you mean 'adamw'?); choose from: adamw, adam, sgd"),
    ],
)
def test_parse_says_what_it_needs(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*SETTINGS[name], text)
    assert str(caught.value) == message


def test_a_misspelt_architecture_gets_the_nearest_name() -> None:
    assert refused(arch="resnet81").startswith("--arch resnet81: not known (did you mean 'resnet18'?)")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "--epochs 0: must be 1 or more"),
        ({"val_split": 0.95}, "--val-split 0.95: must be 0 to 0.9"),
        ({"batch_size": -1}, "--batch-size -1: must be 1 or more"),
        ({"seed": 2**31}, "--seed 2147483648: must be 0 to"),
        ({"rotate": 181}, "--rotate 181: must be 0 to 180"),
        ({"lr": 0}, "--lr 0 would learn nothing"),
        ({"epochs": 2.5}, "--epochs 2.5: needs a whole number"),
        ({"epochs": True}, "--epochs True: needs a whole number"),
        ({"epochs": None}, "--epochs None: needs a whole number"),
        ({"epochs": "5"}, "--epochs 5: needs a whole number"),
        ({"ema": "yes"}, "--ema yes: needs true or false"),
        ({"ema": 1}, "--ema 1: needs true or false"),
        ({"out": 5}, "--out 5: needs text"),
        ({"optimizer": 3}, "--optimizer 3: not known; choose from: adamw, adam, sgd"),
        ({"cache": "foo"}, "--cache foo: not known; choose from: auto, memory, disk, off"),
        ({"lr": [1]}, "--lr [1]: needs a number or auto"),
        ({"learning_rate": 1}, "unknown setting 'learning_rate'"),
        ({"batchsize": 1}, "unknown setting 'batchsize' (did you mean 'batch_size'?)"),
    ],
)
def test_a_value_out_of_bounds_or_of_another_kind_is_refused(given: dict[str, Any], message: str) -> None:
    assert refused(**given).startswith(message)


NUMBERS = [name for name, (_, hint) in SETTINGS.items() if hint is float or hint == float | None]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_everywhere(name: str, value: float) -> None:
    assert flag(SETTINGS[name][0]) in refused(TrainConfig, **{name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"resume": True}, "--resume needs --out"),
        ({"resume": True, "out": "x", "overwrite": True}, "--resume and --overwrite exclude each other"),
        ({"resume": True, "out": "x", "dry_run": True}, "--resume and --dry-run exclude each other"),
        ({"schedule": "onecycle", "warmup_epochs": 1.0}, "--warmup-epochs has no place in --schedule onecycle"),
        ({"warmup_epochs": 10.0, "epochs": 3}, "--warmup-epochs 10: a cosine run of --epochs 3 would never reach its"),
        ({"warmup_epochs": 3.0, "epochs": 3}, "--warmup-epochs 3: a cosine run of --epochs 3 would never reach its"),
        ({"warmup_epochs": 2.0, "epochs": 4, "schedule": "step"}, "--warmup-epochs 2: a step run of --epochs 4 would"),
        ({"amp": True, "device": "cpu"}, "--amp needs CUDA, not --device cpu"),
        ({"weights": "missing.pt", "pretrained": True}, "--weights and --pretrained/--no-pretrained exclude"),
        ({"alternate_flip": True, "flip": False}, "--alternate-flip and --no-flip exclude each other: drop one"),
        ({"nesterov": True}, "--nesterov is for SGD with momentum: type --optimizer sgd --momentum 0.9, or drop it"),
        ({"nesterov": True, "optimizer": "adamw"}, "--nesterov is for SGD with momentum"),
        ({"nesterov": True, "optimizer": "adam"}, "--nesterov is for SGD with momentum"),
        ({"nesterov": True, "optimizer": "sgd", "momentum": 0.0}, "--nesterov is for SGD with momentum"),
    ],
)
def test_combinations_without_sense_are_refused(given: dict[str, Any], message: str) -> None:
    assert refused(**given).startswith(message)


def test_combinations_that_make_sense_are_taken() -> None:
    assert from_dict(TrainConfig, {"nesterov": True, "optimizer": "sgd"}).nesterov
    for schedule, epochs in (("cosine", 2.9), ("constant", 2.9), ("plateau", 2.9), ("step", 1.4)):
        given = {"epochs": 3, "schedule": schedule, "warmup_epochs": epochs}
        assert from_dict(TrainConfig, given).warmup_epochs == epochs
    for flip in (None, True):
        assert from_dict(TrainConfig, {"alternate_flip": True, "flip": flip}).alternate_flip


def test_to_dict_and_from_dict_are_inverse_through_json(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.touch()
    asked = TrainConfig(
        data="pets/",
        arch="lenet",
        size=48,
        rotate=15,
        flip=False,
        weights=str(weights),
        freeze_epochs="all",
        lr=0.01,
        amp=False,
        early_stop=3,
        out="runs/a",
    )
    values = to_dict(asked)
    assert values["data"] == "pets/"
    assert values["workers"] == "auto"
    assert set(values) == set(SETTINGS)
    assert from_dict(TrainConfig, json.loads(json.dumps(values))) == asked
    assert from_dict(TrainConfig, {}) == TrainConfig()


def test_paths_become_text(tmp_path: Path) -> None:
    asked = TrainConfig(data=tmp_path, out=tmp_path / "run")  # type: ignore[arg-type]
    assert (asked.data, asked.out) == (str(tmp_path), str(tmp_path / "run"))


def test_configs_are_frozen_and_hashable() -> None:
    with pytest.raises(AttributeError):
        TrainConfig().epochs = 3  # type: ignore[misc]
    assert hash(TrainConfig()) == hash(TrainConfig())


def test_the_settings_load_nothing_but_the_standard_library() -> None:
    """`--help` reads them, and must answer at once."""
    program = "import sys, imgcls.config; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "imgcls" in loaded
    assert loaded <= {*sys.stdlib_module_names, "imgcls", "__main__", "__mp_main__"}


ROOT = Path(__file__).parents[1]
