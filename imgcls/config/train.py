"""The settings of `train`, and those that `inspect-batch` shares with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from imgcls import paths
from imgcls.config.common import SOURCE, check_device, device_setting
from imgcls.errors import UsageError
from imgcls.registry import ARCHITECTURES
from imgcls.settings import check, setting

ResizeRule = Literal["crop", "squash", "pad"]
Decode = Literal["full", "scaled"]

DIGIT_DATASETS = ("mnist", "svhn")  # a mirrored digit is another picture: no flip by default
SMALL_IMAGE = 40  # pixels; up to this side, crops are pad-and-crop and ResNets get the small stem


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """What `train` and `inspect-batch` share: all that decides what is in a batch.

    The network and its weights are part of it, because they have a size and a normalisation of their own.
    """

    data: str = setting("", "Folder of images, or a data set by name (NAME or NAME:ROOT).", metavar=SOURCE)
    arch: str = setting("resnet18", "Architecture.", known=ARCHITECTURES, metavar="NAME")
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
        None, "Start from this state dict or imgcls checkpoint; only the head may differ.", auto="none", metavar="FILE"
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
class InspectConfig(BatchConfig):
    """What `inspect-batch` can be told."""

    split: Literal["train", "val"] = setting("train", "Which images.")
    output: str | None = setting(None, "Contact sheet: .png, .jpg, .webp, .pdf or .svg.", unset="none", metavar="FILE")

    def check_paths(self) -> None:
        """Hold paths against what is there.

        Raises:
            UsageError, CheckpointError: what is read does not exist, or is of another kind.
            UsageError, WriteError: the contact sheet cannot be written.
        """
        if self.output is not None:
            paths.check_result(self.output, "--output", data=self.data, kind="picture")
        paths.check_source(self.data)
        if self.weights is not None:
            paths.check_weights(self.weights)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(BatchConfig):
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
    out: str | None = setting(
        None, "Run folder.", auto="runs/<date-time>-<arch>, and ./best.pt points at its best", metavar="DIR"
    )
    resume: bool = setting(False, "Continue the run in --out, or start it: the same line can be repeated.")
    overwrite: bool = setting(False, "Replace the files of a run in --out.")
    time_limit: float | None = setting(
        None,
        "Save and stop with exit code 75 after so long (imports not counted), at the end of a step or a validation.",
        low=0,
        auto="none",
        metavar="MINUTES",
    )
    save_every: float = setting(
        # A power cut costs that at most; a signal nothing. It may take 6 s and be 1 % of the time.
        10.0,
        "Save in the middle of an epoch too, so often.",
        low=0,
        metavar="MINUTES",
    )
    dry_run: bool = setting(False, "Build everything, run two validation batches and two steps, write nothing.")
    tensorboard: bool = setting(False, "Write TensorBoard event files into the run folder.")
    deterministic: bool = setting(False, "Use deterministic algorithms only (slower on CUDA).")
    device: str = device_setting()

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
        check_device(self.device, self.amp)

    @property
    def mixes_labels(self) -> bool:
        """Whether images are mixed with others, and their labels with them."""
        return self.mixup > 0 or self.cutmix > 0

    def check_paths(self) -> None:
        """Hold paths against what is there; writes nothing.

        Raises:
            UsageError, CheckpointError: what is read does not exist, or is of another kind.
            UsageError, WriteError: the run folder cannot be used.
        """
        paths.check_run_folder(self.out, self.data, again=self.resume or self.overwrite)
        paths.check_source(self.data)
        if self.weights is not None and not self.resume:  # a run that goes on has them already
            paths.check_weights(self.weights)
