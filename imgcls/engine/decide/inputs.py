"""What is trained on: the images, and how they become the network's input; `train` and `inspect-batch` share it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

from imgcls.checkpoint import Checkpoint
from imgcls.config import DIGIT_DATASETS, BatchConfig
from imgcls.data import draws
from imgcls.data.augment.recipe import Augmentation
from imgcls.data.files import FileLoader, choose_workers
from imgcls.data.images import Images
from imgcls.data.order import Order
from imgcls.data.pictures import Pictures
from imgcls.data.splits import Splits, for_training
from imgcls.distributed import World
from imgcls.engine.decide.decided import DecidedInputs
from imgcls.errors import CheckpointError, UsageError
from imgcls.models import pretrained
from imgcls.models.families import Recipe, published, size_problem
from imgcls.pixels import dim
from imgcls.schema import IMAGENET_MEAN, IMAGENET_STD, Choice, Finding, Interpolation, ModelCard, Preprocess

OWN_SIZE, OWN_RESIZE = 224, 256  # of networks without published weights
UNCROPPED_SIZE = 64  # pixels; images up to this side are used whole
# The same for networks without published weights, which no size suits better than another: lenet on CIFAR images of
# 96 px reaches 65.0 % in 23 s; on the same enlarged to 224 px, 64.0 % in 161 s (five classes, one seed). Whole images
# do as well as those enlarged by 256/224 and cropped: 65.3 against 64.3 % (three seeds), small-cnn 43.6 and 43.4 (two).
UNCROPPED_FREE_SIZE = 128
HEADERS = 256  # images whose headers are read to know the typical size
DIM_SAMPLED = 64  # images whose headers tell the bits; those of more than 8 are decoded

# Mean and standard deviation of the training images, as published with or computed from the data sets.
STATISTICS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307, 0.1307, 0.1307), (0.3081, 0.3081, 0.3081)),
    "fashion-mnist": ((0.2860, 0.2860, 0.2860), (0.3530, 0.3530, 0.3530)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "stl10": ((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is trained on.

    Attributes:
        splits: the training and validation images.
        preprocess: the deterministic transform.
        augmentation: what may happen to training images.
        start: the weights to start from.
        workers: loader processes.
        decided: the choices made for it.
    """

    splits: Splits
    preprocess: Preprocess
    augmentation: Augmentation
    start: pretrained.Start
    workers: int
    decided: DecidedInputs


def decide_inputs(
    config: BatchConfig,
    last: Checkpoint | None = None,
    world: World | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Inputs:
    """List the data and decide size, weights, preprocessing, augmentation and workers.

    Args:
        config: the settings.
        last: of the run that is resumed, whose decisions and hold-out stand.
        world: the training processes.
        say: receives a sentence before something is fetched, which may take minutes.

    Raises:
        UsageError: settings that do not go together, or no such data.
        DataError: the data cannot be trained on.
        CheckpointError: the weights asked for cannot be had.
    """
    world = world or World()
    splits = _splits(config, last, world)
    if last is not None:
        start, preprocess, decided = pretrained.Start(last.card.pretrained), last.card.preprocess, DecidedInputs()
    else:
        start, preprocess, decided = _decide(config, splits, world, say)
    batch_bytes = config.batch_size * 3 * preprocess.size**2
    workers = choose_workers(config.workers, batch_bytes, world.local_size)
    if config.cutout > preprocess.size:
        example = f"type for example --cutout {preprocess.size // 4}"
        raise UsageError(f"--cutout {config.cutout}: the input has {preprocess.size} px; {example}")
    flips, flip = _flips(config, splits.dataset)
    augmentation = Augmentation.of(replace(config, flip=flips), preprocess)
    return Inputs(
        splits=splits,
        preprocess=preprocess,
        augmentation=augmentation,
        start=start,
        workers=workers.value,
        decided=replace(decided, flip=flip, workers=workers),
    )


def _splits(config: BatchConfig, last: Checkpoint | None, world: World) -> Splits:
    with world.main_first():
        splits = for_training(
            config.data,
            val_split=config.val_split,
            seed=config.seed,
            limit=config.limit,
            holdout=last.holdout if last else None,
        )
    splits = _with_dim(splits, config.seed)
    if splits.val is not None and not len(splits.holdout) and config.val_split != BatchConfig.val_split:
        unused = f"--val-split {config.val_split:g} is not used"
        note = Finding("val-split-unused", "note", unused, "the data has validation images of its own")
        splits = replace(splits, findings=(*splits.findings, note))
    return splits


def _flips(config: BatchConfig, dataset: str | None) -> tuple[bool, Choice[bool] | None]:
    """Return whether training images are mirrored, and the choice where it was one."""
    if config.alternate_flip or config.flip is not None:
        return config.alternate_flip or bool(config.flip), None
    if dataset in DIGIT_DATASETS:
        return False, Choice("flip", False, f"{dataset} shows digits")
    return config.augment != "none", None


def _with_dim(splits: Splits, seed: int) -> Splits:
    """Add the finding that training images come out nearly black, if some of them do."""
    images = splits.train.images
    sampled = [images.path(int(index)) for index in draws.sample(seed, len(images), DIM_SAMPLED)]
    if not (dark := [path for path in sampled if dim.is_dim(path)]):
        return splits
    finding = dim.finding(dark, f"{len(sampled)} images that were looked at")
    return replace(splits, findings=(*splits.findings, finding))


def training_batches(
    inputs: Inputs, config: BatchConfig, world: World | None = None, *, smallest: int = 2, pin_memory: bool = False
) -> FileLoader:
    """Return the training batches: shuffled and augmented; `smallest` as `Order` has it."""
    world, split = world or World(), inputs.splits.train
    return FileLoader(
        Pictures(split.images, inputs.preprocess, inputs.augmentation),
        split.labels,
        Order(len(split.images), config.batch_size, config.seed, shuffle=True, ranks=world.size, smallest=smallest),
        rank=world.rank,
        workers=inputs.workers,
        pin_memory=pin_memory,
    )


def validation_batches(
    inputs: Inputs, config: BatchConfig, world: World | None = None, *, pin_memory: bool = False
) -> FileLoader | None:
    """Return the validation batches, in order and unchanged; None without validation images."""
    world, split = world or World(), inputs.splits.val
    if split is None:
        return None
    return FileLoader(
        Pictures(split.images, inputs.preprocess),
        split.labels,
        Order(len(split.images), config.batch_size, ranks=world.size),
        rank=world.rank,
        workers=inputs.workers,
        pin_memory=pin_memory,
    )


def _decide(
    config: BatchConfig, splits: Splits, world: World, say: Callable[[str], None]
) -> tuple[pretrained.Start, Preprocess, DecidedInputs]:
    recipe = published(config.arch)
    given = pretrained.from_file(config.weights, config.arch) if config.weights else None
    size, whole = _choose_size(config, splits.train.images, recipe, given.card if given else None)
    if problem := size_problem(config.arch, size.value):
        raise UsageError(problem)
    with world.main_first():
        start = given or pretrained.choose(config.arch, config.pretrained, size.value, say)
    agreed = world.broadcast_object(start.pretrained)
    if agreed.used is None:
        start = pretrained.Start(agreed)
    elif start.state is None:
        raise CheckpointError(f"{start.pretrained.reason}; the first process has them: share the torch hub cache")
    weights = Choice("weights", start.pretrained.used or "from scratch", start.pretrained.reason)
    preprocess, statistics = _choose_preprocess(config, size.value, whole, splits.dataset, start)
    return start, preprocess, DecidedInputs(size=size, weights=weights, statistics=statistics)


def _choose_size(
    config: BatchConfig, images: Images, recipe: Recipe | None, card: ModelCard | None
) -> tuple[Choice[int], bool]:
    """Return the side of the input, and whether images are used whole, not cropped."""
    if config.size is not None:
        return Choice("size", config.size, "as asked"), config.size <= UNCROPPED_SIZE
    if card is not None:
        size = card.preprocess.size
        return Choice("size", size, "that of --weights"), size <= UNCROPPED_SIZE
    own = recipe.size if recipe else OWN_SIZE
    sampled = draws.sample(config.seed, len(images), HEADERS)
    side = int(statistics.median(max(images.size(int(index))) for index in sampled))
    if side > (UNCROPPED_SIZE if recipe else UNCROPPED_FREE_SIZE):
        return Choice("size", own, f"{config.arch}'s own; the images' median longer side is {side} px"), False
    if problem := size_problem(config.arch, side):
        return Choice(
            "size", own, f"{config.arch}'s own; the images have {side} px, but {problem.split(': ')[1]}"
        ), False
    return Choice("size", side, f"the images' median longer side is {side} px"), True


def _choose_preprocess(
    config: BatchConfig, size: int, whole: bool, dataset: str | None, start: pretrained.Start
) -> tuple[Preprocess, Choice[str]]:
    """Decide the deterministic transform, and whose mean and deviation normalise."""
    recipe = published(config.arch)
    mean, std, whose, why = IMAGENET_MEAN, IMAGENET_STD, "ImageNet's", "no pretrained weights, no known data set"
    ratio = OWN_RESIZE / OWN_SIZE
    interpolation: Interpolation = "bilinear"
    if recipe is not None:
        ratio, interpolation = recipe.resize / recipe.size, recipe.interpolation
    if start.card is not None:
        theirs = start.card.preprocess
        mean, std, whose, why = theirs.mean, theirs.std, "those of --weights", "the checkpoint records them"
        ratio, interpolation = theirs.resize / theirs.size, theirs.interpolation
    elif start.state is not None and recipe is not None:
        mean, std, whose = recipe.mean, recipe.std, recipe.name
        why = "a bare state dict does not say" if config.weights else "those of the weights"
    elif dataset in STATISTICS:
        mean, std = STATISTICS[dataset]
        whose, why = f"{dataset}'s", "a data set with known ones"
    preprocess = Preprocess(
        size=size,
        resize=size if whole or config.resize != "crop" else round(size * ratio),
        rule=config.resize,
        interpolation=interpolation,
        mean=mean,
        std=std,
        decode=config.decode,
    )
    return preprocess, Choice("mean, std", whose, why)
