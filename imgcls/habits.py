"""What people type who know other tools (timm, Ultralytics, Keras, fastai, torchvision's scripts), for "did you mean".

Knows names only. A target that the command at hand does not have is passed over, so one table serves all commands.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from imgcls.errors import nearest

COMMANDS: dict[str, str] = (
    dict.fromkeys(("fit", "finetune", "fine-tune", "training", "learn"), "train")
    | dict.fromkeys(("val", "valid", "validate", "validation", "test", "eval", "score", "benchmark"), "evaluate")
    | dict.fromkeys(("infer", "inference", "classify", "detect", "run", "label", "prediction"), "predict")
    | dict.fromkeys(("convert", "onnx", "save"), "export")
    | dict.fromkeys(("show", "describe", "summary", "model", "version"), "info")
    | dict.fromkeys(("inspect", "batch", "preview", "visualize", "check"), "inspect-batch")
    | dict.fromkeys(("demo", "sample", "data", "example", "examples"), "sample-data")
)

_SIZES = ("--imgsz", "--img-size", "--img", "--image-size", "--input-size", "--resolution", "--train-crop-size")
_FOLDERS = ("--data-dir", "--data-path", "--data-root", "--dataset", "--dataset-dir", "--train-dir", "--root", "--path")
_INPUTS = ("--source", "--image", "--images", "--img-path", "--file", "--files", "--folder", "--dir", "-i")
_FILES = ("--model-path", "--checkpoint", "--checkpoint-path", "--load", "--pt")
_SEVERAL = ("--nproc", "--nproc-per-node", "--distributed", "--multi-gpu", "--world-size", "--num-gpus", "--gpus")

# Option -> what is meant, in order of preference: an option with or without its value, the name of an argument, or a
# sentence.
OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("--batch", "--bs", "--batchsize", "-b"), ("--batch-size",)),
    **dict.fromkeys(_SIZES, ("--size",)),
    **dict.fromkeys(_FOLDERS, ("--data", "images", "folder")),
    **dict.fromkeys((*_INPUTS, "--input", "--data"), ("images", "--data")),
    **dict.fromkeys(_FILES, ("--ckpt", "ckpt", "--weights")),
    **dict.fromkeys(("--model", "-m"), ("--arch", "--ckpt", "ckpt")),
    **dict.fromkeys(("--net", "--network", "--backbone", "--architecture", "--model-name", "-a"), ("--arch",)),
    **dict.fromkeys(("--weights", "--ckpt"), ("--ckpt", "ckpt", "--weights")),
    **dict.fromkeys(("--initial-checkpoint", "--init", "--from"), ("--weights",)),
    **dict.fromkeys(("--patience", "--early-stopping", "--early-stopping-patience"), ("--early-stop",)),
    **dict.fromkeys(("--learning-rate", "--lr0", "--base-lr", "--max-lr", "--init-lr"), ("--lr",)),
    **dict.fromkeys(("--num-workers", "--nworkers", "--n-workers", "--num-cpu", "--threads", "-j"), ("--workers",)),
    **dict.fromkeys(("--gpu", "--cuda", "--use-gpu", "--accelerator"), ("--device cuda",)),
    **dict.fromkeys(("--no-cuda", "--cpu"), ("--device cpu",)),
    **dict.fromkeys(_SEVERAL, ("several GPUs: torchrun --standalone --nproc-per-node N -m imgcls train",)),
    **dict.fromkeys(
        ("--project", "--name", "--save-dir", "--output-dir", "--logdir", "--log-dir"), ("--out", "--output")
    ),
    **dict.fromkeys(("--output", "-o"), ("--output", "--out")),
    **dict.fromkeys(("--out", "--save", "--filename"), ("--out", "--output", "folder")),
    **dict.fromkeys(("--exist-ok", "--force"), ("--overwrite",)),
    **dict.fromkeys(("--wd", "--l2", "--decay"), ("--weight-decay",)),
    **dict.fromkeys(("--opt", "--optim", "--solver"), ("--optimizer",)),
    **dict.fromkeys(("--sched", "--scheduler", "--lr-scheduler", "--lr-schedule"), ("--schedule",)),
    **dict.fromkeys(("--cos-lr", "--cosine"), ("--schedule cosine",)),
    **dict.fromkeys(("--warmup", "--lr-warmup-epochs"), ("--warmup-epochs",)),
    **dict.fromkeys(("--smoothing", "--ls"), ("--label-smoothing",)),
    **dict.fromkeys(("--drop", "--drop-rate", "--drop-out"), ("--dropout",)),
    **dict.fromkeys(("--aug", "--aa", "--auto-augment", "--augmentation", "--augmentations"), ("--augment",)),
    **dict.fromkeys(("--no-aug", "--no-augment"), ("--augment none",)),
    **dict.fromkeys(("--hflip", "--fliplr"), ("--flip",)),
    **dict.fromkeys(("--mixup-alpha",), ("--mixup",)),
    **dict.fromkeys(("--cutmix-alpha",), ("--cutmix",)),
    **dict.fromkeys(("--balanced", "--balance", "--weighted"), ("--class-weights balanced",)),
    **dict.fromkeys(("--grad-accum", "--grad-accum-steps", "--accumulate-grad-batches", "--accum"), ("--accumulate",)),
    "--gradient-accumulation-steps": ("--accumulate",),
    **dict.fromkeys(("--max-grad-norm", "--gradient-clip-val", "--clip-norm"), ("--clip-grad",)),
    **dict.fromkeys(("--model-ema", "--swa"), ("--ema",)),
    **dict.fromkeys(("--fp16", "--half", "--bf16", "--mixed-precision", "--precision", "--native-amp"), ("--amp",)),
    **dict.fromkeys(("--random-seed", "--manual-seed", "--random-state"), ("--seed",)),
    **dict.fromkeys(("--epoch", "--num-epochs", "--n-epochs", "--max-epochs", "--num-train-epochs"), ("--epochs",)),
    **dict.fromkeys(("-e", "-n"), ("--epochs",)),
    **dict.fromkeys(("--val-size", "--test-size", "--valid-pct", "--validation-split", "--val-pct"), ("--val-split",)),
    **dict.fromkeys(("--freeze", "--freeze-backbone", "--linear-probe"), ("--freeze-epochs all", "--freeze-epochs")),
    **dict.fromkeys(("--metric", "--eval-metric", "--best-metric"), ("--monitor",)),
    **dict.fromkeys(("--conf", "--conf-thres", "--min-confidence", "--thresh"), ("--threshold",)),
    **dict.fromkeys(("--topk", "--top", "-k"), ("--top-k",)),
    **dict.fromkeys(("--pos-label", "--positive-class"), ("--positive",)),
    **dict.fromkeys(("--save-json", "--output-json", "--json-file", "--results"), ("--json",)),
    **dict.fromkeys(("--save-csv", "--csv", "--output-csv", "--save-txt"), ("--predictions", "--format csv")),
    **dict.fromkeys(("--include", "--to", "--type"), ("--format",)),
    **dict.fromkeys(("--cfg", "--yaml", "--hyp", "-c"), ("--config",)),
    **dict.fromkeys(("--max-samples", "--num-samples", "--subset"), ("--limit",)),
    **dict.fromkeys(("--torchcompile", "--torch-compile"), ("--compile",)),
    "-d": ("--data", "--device"),
    **dict.fromkeys(("--num-classes", "--nc", "--classes", "--class-names"), ("the class folders say it: drop it",)),
    **dict.fromkeys(("--val-dir", "--valid-dir", "--test-dir"), ("give --data the folder that holds train/ and val/",)),
}

# Value of an option -> the word that we have for it.
VALUES: dict[str, dict[str, str]] = {
    "--device": dict.fromkeys(("gpu", "nvidia", "rocm", "hip"), "cuda") | dict.fromkeys(("metal", "apple"), "mps"),
    "--data": {"cifar": "cifar10", "cifar-10": "cifar10", "cifar-100": "cifar100", "fashionmnist": "fashion-mnist"}
    | {"pets": "oxford-pets", "oxfordiiitpet": "oxford-pets", "flowers": "flowers102", "food": "food101"},
    "--optimizer": {"momentum": "sgd", "nesterov": "sgd", "auto": "adamw"},
    "--schedule": dict.fromkeys(("cos", "cosineannealing", "cosineannealinglr"), "cosine")
    | {"multistep": "step", "multisteplr": "step", "steplr": "step", "onecyclelr": "onecycle", "1cycle": "onecycle"}
    | dict.fromkeys(("none", "off", "fixed"), "constant")
    | dict.fromkeys(("reducelronplateau", "reduce-on-plateau"), "plateau"),
    "--monitor": dict.fromkeys(("acc", "acc1", "top1", "val/acc", "val_accuracy", "accuracy"), "val-acc")
    | dict.fromkeys(("loss", "val/loss"), "val-loss")
    | dict.fromkeys(("f1", "f1-macro", "f1_macro", "val_f1"), "macro-f1"),
    "--augment": dict.fromkeys(("autoaugment", "randaugment", "trivialaugment", "augmix", "heavy"), "strong")
    | dict.fromkeys(("no", "off", "false"), "none")
    | dict.fromkeys(("default", "yes", "true", "medium"), "standard")
    | dict.fromkeys(("basic", "weak", "simple"), "light"),
    "--resize": {"stretch": "squash", "letterbox": "pad", "centercrop": "crop", "center-crop": "crop"},
    "--class-weights": dict.fromkeys(("auto", "inverse", "yes", "true"), "balanced") | {"no": "none", "off": "none"},
    "--cache": {"ram": "memory", "true": "memory", "none": "off", "no": "off", "false": "off"},
    "--split": dict.fromkeys(("valid", "validation", "dev", "holdout"), "val")
    | {"training": "train", "testing": "test"},
    "--format": dict.fromkeys(("ts", "jit", "script", "libtorch"), "torchscript")
    | dict.fromkeys(("engine", "tensorrt", "openvino", "ort"), "onnx")
    | {"exported": "pt2", "aoti": "pt2", "ndjson": "jsonl", "txt": "text", "tsv": "text", "table": "text"},
}

# Architecture of ours -> how names begin that it comes nearest to, in lower case and without signs.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "vit_b_16": ("vitbase", "vitsmall", "vittiny", "vitmedium", "deit", "deit3", "beit", "flexivit"),
    "vit_b_32": ("vitbasepatch32",),
    "vit_l_16": ("vitlarge",),
    "vit_l_32": ("vitlargepatch32",),
    "vit_h_14": ("vithuge",),
    "swin_t": ("swintiny",),
    "swin_s": ("swinsmall",),
    "swin_b": ("swinbase", "swinlarge"),
    "swin_v2_t": ("swinv2tiny",),
    "swin_v2_s": ("swinv2small",),
    "swin_v2_b": ("swinv2base", "swinv2large"),
    "convnext_tiny": ("convnextatto", "convnextfemto", "convnextpico", "convnextnano", "convnextv2"),
    "convnext_base": ("convnextv2base",),
    "convnext_large": ("convnextv2large", "convnextxlarge"),
    "efficientnet_b0": ("efficientnetlite", "tfefficientnetlite", "mobileone", "ghostnet"),
    "efficientnet_v2_s": ("efficientnetv2", "tfefficientnetv2"),
    "inception_v3": ("inceptionv4", "inceptionresnet", "xception"),
    "maxvit_t": ("maxvit",),
    "mnasnet0_5": ("mnasnet050",),
    "mnasnet0_75": ("mnasnet075",),
    "mnasnet1_0": ("mnasnet100",),
    "mnasnet1_3": ("mnasnet140",),
    "mobilenet_v2": ("mobilenetv1",),
    "mobilenet_v3_small": ("mobilevit",),
    "mobilenet_v3_large": ("mobilenetv3", "mobilenetv4"),
    "regnet_x_400mf": ("regnetx002", "regnetx004"),
    "regnet_x_800mf": ("regnetx006", "regnetx008"),
    "regnet_x_1_6gf": ("regnetx016",),
    "regnet_x_3_2gf": ("regnetx032", "regnetx040"),
    "regnet_x_8gf": ("regnetx064", "regnetx080"),
    "regnet_x_16gf": ("regnetx120", "regnetx160"),
    "regnet_x_32gf": ("regnetx320",),
    "regnet_y_400mf": ("regnety002", "regnety004"),
    "regnet_y_800mf": ("regnety006", "regnety008"),
    "regnet_y_1_6gf": ("regnety016",),
    "regnet_y_3_2gf": ("regnety032", "regnety040"),
    "regnet_y_8gf": ("regnety064", "regnety080"),
    "regnet_y_16gf": ("regnety120", "regnety160"),
    "regnet_y_32gf": ("regnety320",),
    "resnet18": ("yolo", "cnn", "simplecnn"),
    "resnet50": ("resnetv250", "resnetrs"),
    "resnet101": ("resnetv2101",),
    "resnet152": ("resnetv2152",),
    "resnext50_32x4d": ("resnext50",),
    "resnext101_32x8d": ("resnext101",),
    "wide_resnet50_2": ("wideresnet50",),
    "wide_resnet101_2": ("wideresnet101",),
}


def option(typed: str, known: Collection[str]) -> str | None:
    """Return what is meant by an option that a command has not: of `OPTIONS` the first that is `known`; or None."""
    name = typed.replace("_", "-").lower() if typed.startswith("--") else typed
    for wanted in OPTIONS.get(name, ()):
        if wanted.split()[0] in known or is_sentence(wanted):
            return wanted
    return None


def is_sentence(wanted: str) -> bool:
    """Tell whether `option` gave advice and not a name."""
    return " " in wanted and not wanted.startswith("-")


def value(flag: str, typed: str, known: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for a value that an option does not take, or an empty string."""
    words = list(known)
    wanted = VALUES.get(flag, {}).get(typed.lower())
    if flag == "--arch":
        wanted = _architecture(typed, words)
    elif flag == "--device" and (number := re.fullmatch(r"(?:gpu|cuda)?[-_:]?(\d+)", typed.lower())):
        return f" (did you mean 'cuda:{number[1]}'?)"
    return f" (did you mean '{wanted}'?)" if wanted in words else nearest(typed, words)


def _architecture(typed: str, known: Iterable[str]) -> str | None:
    """Return the architecture with the longest part in common: a beginning of `ARCHITECTURES`, or a whole name."""
    whole = {_squeezed(name): name for name in known}
    for given in (_squeezed(typed), _squeezed(typed.rpartition("/")[2])):  # ViT-B/16, google/vit-base-patch16-224
        if given in whole:
            return whole[given]
        found = {part: name for name, parts in ARCHITECTURES.items() for part in parts if given.startswith(part)}
        found |= {part: name for part, name in whole.items() if part in given}
        if found:
            return found[max(found, key=len)]
    return None


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
