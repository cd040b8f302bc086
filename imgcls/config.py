"""Every setting of a run, stated once: name, type, default, sentence for `--help`, and bounds.

The command line, `config.json` and the Python API are all made from these types. Knows nothing of torch; a
value of None means "auto", to be decided (with a printed reason) once the data and the machine are known.
"""

import math
import os
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal

from imgcls import habits
from imgcls.errors import UsageError, nearest
from imgcls.registry import ARCHITECTURES

ResizeRule = Literal["crop", "squash", "pad"]
Decode = Literal["full", "scaled"]

DIGIT_DATASETS = ("mnist", "svhn")  # a mirrored digit is another picture: no flip by default
EVALUATED = ("train", "val", "test")  # splits
SMALL_IMAGE = 40  # pixels; up to this side, crops are pad-and-crop and ResNets get the small stem


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    known: Mapping[str, str] | None = None,
    auto: str = "",
) -> Any:
    """Make a dataclass field that also carries its help sentence and bounds.

    `low` and `high` are inclusive; `known` lists the valid names; `auto` says what None means.
    """
    metadata = {"help": help, "low": low, "high": high, "known": known, "auto": auto}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What `train` and `inspect-batch` share: which images, and how they become batches."""

    data: str = setting("", "Folder of images, or a data set by name (NAME or NAME:ROOT).")
    arch: str = setting("resnet18", "Architecture.", known=ARCHITECTURES)
    size: int | None = setting(
        None,
        "Side of the square network input, pixels.",
        low=8,
        high=4096,
        auto="small images: their own side, else the architecture's",
    )
    resize: ResizeRule = setting("crop", "How an image becomes square: cut the longer side, distort, or add borders.")
    augment: Literal["none", "light", "standard", "strong"] = setting("standard", "Augmentation of training images.")
    rotate: float = setting(0.0, "Rotate training images by up to this many degrees either way.", low=0, high=180)
    color_jitter: float = setting(0.0, "Vary brightness, contrast and saturation by up to this share.", low=0, high=1)
    flip: bool | None = setting(None, "Mirror training images at random.", auto="yes, but not for mnist and svhn")
    alternate_flip: bool = setting(False, "Mirror each training image in every other epoch instead of at random.")
    cutout: int = setting(
        0, "Cover a square of this side, pixels, somewhere in each training image; 0: off.", low=0, high=4096
    )
    decode: Decode = setting(
        "full",
        "How validation and all later commands decode: every pixel, or large pictures at a fraction of their size, "
        "several times sooner. Random crops in training do so anyway.",
    )
    batch_size: int = setting(64, "Images per batch and process.", low=1)
    val_split: float = setting(
        0.2, "Share of train/ held out when there is no validation folder; 0: none.", low=0, high=0.9
    )
    limit: int | None = setting(None, "Use at most this many images per split.", low=1, auto="all")
    workers: int | None = setting(
        None, "Loader processes.", low=0, high=256, auto="the CPUs this process may use, at most 8"
    )
    seed: int = setting(0, "Seed of order, augmentation, initial weights and hold-out.", low=0, high=2**31 - 1)
    pretrained: bool | None = setting(
        None,
        "Start from published weights; an error if they are not cached and cannot be downloaded.",
        auto="when the input is at least 96 px and they are cached or can be downloaded",
    )
    weights: str | None = setting(
        None, "Start from this state dict or imgcls checkpoint; only the head may differ.", auto="none"
    )

    def __post_init__(self) -> None:
        """Check every field against its bounds.

        Raises:
            UsageError: naming the flag, the value and what is allowed.
        """
        check(self)
        if self.weights is not None and self.pretrained is not None:
            raise UsageError("--weights and --pretrained/--no-pretrained exclude each other: drop one")
        if self.alternate_flip and self.flip is False:
            raise UsageError("--alternate-flip and --no-flip exclude each other: drop one")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataConfig):
    """Everything `train` can be told, by the names of its options; paths may be `pathlib.Path`."""

    freeze_epochs: int | Literal["all"] = setting(
        0, "Epochs in which only the head learns, BatchNorm of the backbone in eval mode.", low=0
    )
    stem: Literal["auto", "small", "standard"] = setting(
        "auto", "First layers of ResNets; small is 3x3 stride 1 without max-pool, automatic up to 40 px."
    )
    dropout: float | None = setting(
        None, "Dropout before the head.", low=0, high=0.95, auto="as the architecture has it"
    )
    epochs: int = setting(20, "Passes over the training images.", low=1)
    optimizer: Literal["adamw", "adam", "sgd"] = setting("adamw", "Optimizer.")
    lr: float | None = setting(
        None,
        "Peak learning rate.",
        low=0,
        auto="3e-4 (fine-tuning transformers, ConvNeXt: 1e-4), SGD 0.1 (fine-tuning, no BatchNorm: 0.01), by batch",
    )
    momentum: float = setting(0.9, "Momentum of SGD.", low=0, high=0.999)
    nesterov: bool = setting(False, "Nesterov's momentum of SGD.")
    weight_decay: float = setting(1e-4, "Weight decay.", low=0)
    schedule: Literal["cosine", "onecycle", "step", "plateau", "constant"] = setting(
        "cosine",
        "Learning-rate schedule; step: a tenth at 50 % and 75 %; plateau: a tenth after 3 epochs without a new best.",
    )
    warmup_epochs: float | None = setting(
        None, "Epochs of linear warm-up.", low=0, auto="5 % of the steps, at most 5 epochs; onecycle has its own"
    )
    label_smoothing: float = setting(0.0, "Label smoothing of the training loss.", low=0, high=0.99)
    class_weights: Literal["none", "balanced"] = setting("none", "Weight the loss by inverse class frequency.")
    mixup: float = setting(0.0, "Mixup: parameter of the Beta distribution; 0: off.", low=0)
    cutmix: float = setting(
        0.0, "Cutmix: parameter of the Beta distribution; 0: off; with mixup, either at random.", low=0
    )
    accumulate: int = setting(1, "Batches per optimizer step.", low=1)
    clip_grad: float | None = setting(None, "Clip the norm of the gradient to this.", low=1e-12, auto="off")
    amp: bool | None = setting(None, "Mixed precision (bf16 where the GPU has it, else fp16).", auto="on CUDA only")
    ema: bool = setting(False, "Validate and keep an exponential moving average of the weights.")
    cache: Literal["memory", "disk", "off"] | None = setting(
        None,
        "Keep decoded images in memory, or in a file in your cache folder for later runs too; changes no result.",
        auto="memory, when they take at most half of what is free",
    )
    compile: bool = setting(
        False, "Compile the network (torch.compile): a minute or more at first, then faster steps on a GPU."
    )
    channels_last: bool | None = setting(None, "Memory format of the network.", auto="yes, but not on Apple GPUs")
    sync_bn: bool = setting(False, "BatchNorm over the batches of all processes (several GPUs).")
    monitor: Literal["val-acc", "val-loss", "macro-f1"] = setting(
        "val-acc", "What makes an epoch the best; of equal accuracies or F1, the smaller loss."
    )
    early_stop: int | None = setting(None, "Stop after this many epochs without a new best.", low=1, auto="off")
    out: str | None = setting(None, "Run folder.", auto="runs/<date-time>-<arch>, and ./best.pt points at its best")
    resume: bool = setting(False, "Continue the run in --out, or start it: the same line can be repeated.")
    overwrite: bool = setting(False, "Replace the files of a run in --out.")
    dry_run: bool = setting(False, "Build everything, run two validation batches and two steps, write nothing.")
    tensorboard: bool = setting(False, "Write TensorBoard event files into the run folder.")
    deterministic: bool = setting(False, "Use deterministic algorithms only (slower on CUDA).")
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps; auto is cuda, then mps, then cpu.")

    def __post_init__(self) -> None:
        """Check every field, then the combinations that make no sense.

        Raises:
            UsageError: naming the flags to change.
        """
        super().__post_init__()
        if self.resume and self.out is None:
            raise UsageError("--resume needs --out: name the run folder to continue")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other: drop one")
        if self.resume and self.dry_run:
            raise UsageError("--resume and --dry-run exclude each other: drop one")
        if self.schedule == "onecycle" and self.warmup_epochs is not None:
            raise UsageError("--warmup-epochs has no place in --schedule onecycle, which warms up itself: drop it")
        # "step" lowers the rate at half the run: a warm-up until then never reaches it either.
        reached = self.epochs / 2 if self.schedule == "step" else self.epochs
        if self.warmup_epochs is not None and self.warmup_epochs >= reached:
            raise UsageError(
                f"--warmup-epochs {self.warmup_epochs:g}: a {self.schedule} run of --epochs {self.epochs} would never "
                f"reach its learning rate: give less than {reached:g}, or raise --epochs"
            )
        if self.momentum != 0.9 and self.optimizer != "sgd":
            raise UsageError(f"--momentum {self.momentum} is for SGD: type --optimizer sgd, or drop it")
        if self.compile and self.sync_bn:
            raise UsageError("--compile and --sync-bn exclude each other in torch: drop one")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise UsageError("--nesterov is for SGD with momentum: type --optimizer sgd --momentum 0.9, or drop it")
        if self.lr == 0:
            raise UsageError("--lr 0 would learn nothing: give a positive number")
        if self.amp and self.device not in ("auto",) and not self.device.startswith("cuda"):
            raise UsageError(f"--amp needs CUDA, not --device {self.device}: drop --amp")

    @property
    def mixes_labels(self) -> bool:
        """Whether images are mixed with others, and their labels with them."""
        return self.mixup > 0 or self.cutmix > 0


_KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def settings(config_type: type[Any]) -> Iterator[tuple[Field[Any], Any]]:
    """Yield each field of a config type with its resolved type."""
    hints = typing.get_type_hints(config_type)
    for item in fields(config_type):
        yield item, hints[item.name]


def flag(item: Field[Any]) -> str:
    """Return the command-line flag of a setting."""
    return "--" + item.name.replace("_", "-")


def choices(hint: Any) -> tuple[str, ...]:
    """Return the words a setting of this type accepts, or an empty tuple."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(word for part in typing.get_args(hint) for word in choices(part))
    return ()


def parse(item: Field[Any], hint: Any, text: str) -> Any:
    """Turn the text of an option into its value; `auto` gives None where None means that.

    Raises:
        UsageError: the text is no value of this type.
    """
    words, auto = choices(hint), item.metadata["auto"]
    if auto and text == "auto":
        return None
    if text in words:
        return text
    for number in (int, float):
        if number in _kinds(hint):
            try:
                return number(text)
            except ValueError:
                raise UsageError(_wrong_kind(item, hint, text)) from None
    if words:
        raise UsageError(_not_one_of(item, text, words))
    return text


def parse_device(text: str) -> tuple[str, int | None]:
    """Split `--device` into its kind (auto, cpu, cuda, mps) and the number in cuda:N.

    Raises:
        UsageError: none of these.
    """
    kinds = ("auto", "cpu", "cuda", "mps")
    kind, colon, number = text.partition(":")
    if kind not in kinds or (colon and not (kind == "cuda" and number.isdecimal())):
        hint = habits.value("--device", text, kinds)
        raise UsageError(f"--device {text}: not known{hint}; choose from: auto, cpu, cuda, cuda:N, mps")
    return kind, int(number) if number else None


def check(config: Any) -> None:
    """Hold each field of a config against its words and bounds; a path becomes text.

    Raises:
        UsageError: naming the flag, the value given and what is allowed.
    """
    for item, hint in settings(type(config)):
        value = getattr(config, item.name)
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
            object.__setattr__(config, item.name, value)
        if value is None and item.metadata["auto"]:
            continue
        known, low, high = (item.metadata[name] for name in ("known", "low", "high"))
        if known is not None and value not in known:
            raise UsageError(_not_one_of(item, value, tuple(known)))
        if not _fits(value, hint):
            raise UsageError(_wrong_kind(item, hint, value))
        if isinstance(value, str):
            continue
        _check_bounds(flag(item), value, low, high)


def check_word(flag: str, value: str, words: Collection[str]) -> None:
    """Hold an option that is no setting of `train` against the words it accepts.

    Raises:
        UsageError: naming the flag, the value given and what to choose from.
    """
    if value not in words:
        hint = habits.value(flag, value, words)
        raise UsageError(f"{flag} {value}: not known{hint}; choose from: {', '.join(words)}")


def check_number(flag: str, value: Any, kind: type[int] | type[float], low: float, high: float | None = None) -> None:
    """Hold an option that is no setting of `train` against its kind and its bounds, which are inclusive.

    Raises:
        UsageError: naming the flag, the value given and what is allowed.
    """
    if not _fits(value, kind):
        raise UsageError(f"{flag} {value}: needs {_KIND_NAMES[kind]}")
    _check_bounds(flag, value, low, high)


def _check_bounds(flag: str, value: float, low: float | None, high: float | None) -> None:
    if (low is not None and not value >= low) or (high is not None and not value <= high) or value == math.inf:
        raise UsageError(f"{flag} {value}: must be {bounds(low, high)}")


def bounds(low: float | None, high: float | None) -> str:
    """Say between which numbers a setting must lie; "" where it is free."""
    if low is None:
        return ""
    return f"{low:g} or more" if high is None else f"{low:g} to {high if isinstance(high, int) else f'{high:g}'}"


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as they were asked for, by name; "auto" stays "auto"."""
    return {name: "auto" if value is None else value for name, value in vars(config).items()}


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Build a TrainConfig from `to_dict`'s form; missing keys keep their defaults.

    Raises:
        UsageError: an unknown key or an invalid value.
    """
    known = {item.name: item for item in fields(TrainConfig)}
    for name in values:
        if name not in known:
            meant = (habits.option(f"--{name}", [flag(item) for item in known.values()]) or "")[2:].replace("-", "_")
            hint = f" (did you mean '{meant}'?)" if meant in known else nearest(name, known)
            raise UsageError(f"unknown setting '{name}'{hint}")
    plain: dict[str, Any] = {
        name: None if value == "auto" and known[name].metadata["auto"] else value for name, value in values.items()
    }
    try:
        return TrainConfig(**plain)
    except TypeError as error:
        raise UsageError(f"a setting has a value of the wrong type: {error}") from error


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) or (hint,)


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a setting's type; a bool is no number, a whole number is a number too."""
    kinds = _kinds(hint)
    if isinstance(value, str):
        return str in kinds or value in choices(hint)
    if isinstance(value, bool):
        return bool in kinds
    return (isinstance(value, int) and int in kinds) or (isinstance(value, (int, float)) and float in kinds)


def _wrong_kind(item: Field[Any], hint: Any, value: Any) -> str:
    words = choices(hint)
    names = [name for kind, name in _KIND_NAMES.items() if kind in _kinds(hint)]
    if not names:
        return _not_one_of(item, value, words)
    return f"{flag(item)} {value}: needs {' or '.join([*names, *words, *(['auto'] if item.metadata['auto'] else [])])}"


def _not_one_of(item: Field[Any], value: Any, words: tuple[str, ...]) -> str:
    all_words = [*(["auto"] if item.metadata["auto"] else []), *words]
    listed = ", ".join(all_words) if len(words) <= 8 else "the list in imgcls train --help"
    return f"{flag(item)} {value}: not known{habits.value(flag(item), str(value), words)}; choose from: {listed}"
