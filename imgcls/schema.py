"""The plain values that travel between the parts and to the user: preprocessing, model card, prediction, report.

Knows no arrays, tensors or files; every type turns into JSON with `dataclasses.asdict`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar, get_args

from imgcls.config import Decode, ResizeRule

Value = TypeVar("Value")
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


CARD_TYPES: dict[str, type] = {"arch": str, "arch_options": dict, "classes": list, "preprocess": dict}
CARD_TYPES |= {"pretrained": dict, "metrics": dict, "epoch": int, "config": dict, "data_fingerprint": str}
CARD_TYPES |= {"run": dict, "imgcls_version": str}
# Of the card. A last.pt in the middle of an epoch has another, because older versions would begin the epoch anew.
FORMAT, WITHIN_EPOCH = 1, 2
CARD_NAME = "imgcls.json"  # of the card in an exported file

# Of the validation that chose the checkpoint; {} when there was none.
METRIC_TYPES: dict[str, type] = {"held_out": bool, "images": int, "accuracy": float, "loss": float}


def check_types(values: dict[str, Any], types: dict[str, type]) -> None:
    """Refuse a forged card here, before its values reach code that relies on their types; TypeError says which."""
    for name, kind in types.items():
        if not isinstance(values[name], kind):
            raise TypeError(f"{name} is {type(values[name]).__name__}, not {kind.__name__}")


def check_content(names: Any, content: Any) -> None:
    """Refuse a hold-out whose contents do not belong to its names, both int64 arrays; ValueError."""
    if content.dtype.name != "int64" or (len(content) and content.shape != names.shape):
        raise ValueError(
            f"holdout_content is {content.dtype.name} {list(content.shape)}, not int64 {list(names.shape)}"
        )


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes network input; stored in every checkpoint and never re-derived.

    `decode` names the pixel semantics (EXIF orientation applied, 16 bits scaled to 8, transparency laid on
    white, colour profiles ignored as torchvision's training recipes do; "scaled": large pictures are decoded at a
    fraction of their size), so that they can never change silently.
    """

    size: int  # side of the square network input, pixels
    resize: int  # shorter side after resizing, before the centre crop, pixels (rule "crop" only)
    rule: ResizeRule = "crop"
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of channels scaled to 0..1
    std: tuple[float, float, float] = IMAGENET_STD
    colour: Literal["rgb"] = "rgb"
    exif: bool = True
    decode: Decode = "full"

    def __post_init__(self) -> None:
        """Refuse what no transform can do (a checkpoint may be a stranger's); TypeError or ValueError says what."""
        words = ((self.rule, ResizeRule), (self.interpolation, Interpolation), (self.decode, Decode))
        check_types({"size": self.size, "resize": self.resize}, {"size": int, "resize": int})
        if not (1 <= self.size <= 4096 and self.size <= self.resize <= 2 * 4096):
            raise ValueError(f"no valid preprocessing: size {self.size}, resize {self.resize}")
        fixed = (self.colour, self.exif) == ("rgb", True)
        if not fixed or any(value not in get_args(known) for value, known in words):
            raise ValueError(f"no valid preprocessing: {self.rule}, {self.interpolation}, {self.decode}")
        sane = all(abs(value) < 1e3 for value in (*self.mean, *self.std))
        if not (len(self.mean) == len(self.std) == 3 and sane and min(self.std) > 0):
            raise ValueError(f"no valid preprocessing: mean {self.mean}, std {self.std}")

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean colour as 0..255 levels, which the network sees as zeros: used for padding and erasing."""
        red, green, blue = (round(255 * channel) for channel in self.mean)
        return red, green, blue

    @property
    def shorter(self) -> int | None:
        """The shorter side that decoding must keep, pixels; None: all of it."""
        return self.resize if self.decode == "scaled" else None

    def __str__(self) -> str:
        steps = {
            "crop": f"resize {self.resize} ({self.interpolation}), centre crop {self.size}",
            "squash": f"squash to {self.size}x{self.size} ({self.interpolation})",
            "pad": f"fit into {self.size}x{self.size} ({self.interpolation}), pad",
        }
        mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (self.mean, self.std))
        first = "decode at reduced size, " if self.decode == "scaled" else ""
        return f"{first}{steps[self.rule]}; mean {mean}; std {std}"


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What was asked for in the way of pretrained weights, what was used, and why."""

    asked: str  # "auto", "yes", "no" or the path given to --weights
    used: str | None  # e.g. "torchvision ResNet18_Weights.IMAGENET1K_V1", or None: from scratch
    reason: str
    missing: bool = False  # weights were wanted and could not be had: to be said loudly


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything a checkpoint says about its model, all but the tensors."""

    arch: str
    arch_options: dict[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess
    pretrained: Pretrained
    metrics: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0  # epochs finished
    config: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)  # command line, versions, hashes of the images seen, draws
    data_fingerprint: str = ""
    imgcls_version: str = ""
    format: int = FORMAT

    @property
    def reached(self) -> str:
        """How far its training was: "epoch 3", or, saved within the fourth, "within epoch 4"."""
        return f"within epoch {self.epoch + 1}" if self.format == WITHIN_EPOCH else f"epoch {self.epoch}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint or JSON."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelCard:
        """Rebuild a card from `to_dict`'s values; KeyError, TypeError or ValueError when they are not one."""
        values = {"run": {}} | values  # younger than the first checkpoints
        check_types(values, {"format": int})
        if values["format"] > WITHIN_EPOCH:
            raise ValueError(f"written by imgcls {values['imgcls_version']}, which is newer: update imgcls")
        check_types(values, CARD_TYPES)
        run: dict[str, Any] = {"versions": {}, "command_line": [], "resumed_by": [], "resolved": {}, "draws": []}
        check_types(run | values["run"], {name: type(value) for name, value in run.items()})
        for entry in values["run"].get("draws", ()):
            check_types(entry, {"version": int, "from_epoch": int})
        if not values["classes"] or not all(isinstance(name, str) for name in values["classes"]):
            raise TypeError("classes are no names")
        if len(set(values["classes"])) != len(values["classes"]):
            raise ValueError("two classes have one name")
        "".join(values["classes"]).encode("utf-8", "surrogateescape")  # ValueError: what no folder can be called
        if values["metrics"]:
            low, high = values["metrics"]["accuracy_interval"]
            check_types(values["metrics"] | {"low": low, "high": high}, METRIC_TYPES | {"low": float, "high": float})
        preprocess = dict(values["preprocess"])
        preprocess["mean"], preprocess["std"] = tuple(preprocess["mean"]), tuple(preprocess["std"])
        known = {name: values[name] for name in cls.__dataclass_fields__}
        return cls(
            **known
            | {
                "classes": tuple(values["classes"]),
                "preprocess": Preprocess(**preprocess),
                "pretrained": Pretrained(**values["pretrained"]),
            }
        )


@dataclass(frozen=True)
class Score:
    """One class and its probability."""

    class_name: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer for one input. On failure `class_name` and `confidence` are None and `error` is one line."""

    path: str
    class_name: str | None = None
    confidence: float | None = None
    top: tuple[Score, ...] | None = None
    error: str | None = None
    below_threshold: bool = False
    dim: bool = False  # more than 8 bits per channel, of which nearly nothing is left: see `pixels.dim`

    @property
    def others(self) -> tuple[Score, ...]:
        """The scores of `top` but the answer's; below a threshold, but the likeliest, of `confidence`."""
        if self.below_threshold:
            return (self.top or ())[1:]
        return tuple(score for score in self.top or () if score.class_name != self.class_name)

    def to_dict(self) -> dict[str, Any]:
        """Return the stable fields of `predict --format jsonl`."""
        top = None if self.top is None else [{"class": s.class_name, "confidence": s.confidence} for s in self.top]
        row = {
            "path": self.path,
            "class": self.class_name,
            "confidence": self.confidence,
            "top": top,
            "error": self.error,
        }
        return row | ({"below_threshold": True} if self.below_threshold else {})


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that `export` wrote, and how it compared with the checkpoint."""

    path: str
    format: str
    input: str  # "uint8" or "float32"
    bytes: int
    images: int  # compared
    compared: str  # which images these were
    batch_sizes: tuple[int, ...]
    probability_difference: float  # the largest
    logits_difference: float  # the largest, as a share of the logits' range
    seconds: float


@dataclass(frozen=True)
class Finding:
    """Something about the data or the run that the user should know, with what to do about it."""

    code: str
    severity: Literal["note", "warning"]
    message: str
    advice: str
    paths: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message}; {self.advice}"


@dataclass(frozen=True)
class Choice(Generic[Value]):
    """A value that was decided automatically, and the reason that is printed with it."""

    name: str
    value: Value
    reason: str

    @property
    def shown(self) -> str:
        """The value as it is printed: a computed number with three digits, 0.175 and not 0.17500000000000002."""
        if not isinstance(self.value, float):
            return str(self.value)
        return f"{self.value:.12g}" if self.reason == "as asked" else f"{self.value:.3g}"
