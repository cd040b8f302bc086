"""Every option of `train` does something where it acts: what the network is fed, what is learnt, what is written."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from carrying import OPTIONS, shown, shows
from PIL import Image
from small_runs import Seen, built, draw, of, run, same, started, tiny, warnings
from torch import nn

from imgcls import registry
from imgcls.config import TrainConfig
from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing, Source
from imgcls.device import choose_device
from imgcls.distributed import World
from imgcls.engine.decide import build as build_module
from imgcls.engine.decide.build import build, choose_compute
from imgcls.engine.decide.inputs import decide_inputs
from imgcls.errors import CheckpointError, UsageError
from imgcls.events import EpochEnded, Event
from imgcls.models import families, pretrained
from imgcls.models.classifier import build_network
from imgcls.pixels.transform import read, transform
from imgcls.schema import Choice, Preprocess

pytest_plugins = ("small_runs",)


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_has_a_test(command: str) -> None:
    assert shown()[command] == OPTIONS[command]


# Data ----------------------------------------------------------------------------------------------------------------


@shows("train", "data")
def test_data(tmp_path: Path, seen: Seen) -> None:
    """The pictures the network is trained on are those of the folder."""
    data = draw(tmp_path / "data", {"train/blue": 1, "train/red": 1, "val/red": 1})
    event = started(run(tiny(data, dry_run=True)).events)
    assert event.images == {"train": 2, "val": 1}
    assert event.card.classes == ("blue", "red")
    expected = {np.asarray(Image.open(path)).tobytes() for path in data.glob("train/*/*.png")}
    assert {image.permute(1, 2, 0).contiguous().numpy().tobytes() for image in seen.train[0]} == expected


@shows("train", "arch")
def test_arch(pictures: Path, tmp_path: Path) -> None:
    for arch in ("simple-cnn", "small-cnn"):
        done = run(tiny(pictures, arch=arch, out=str(tmp_path / arch)))
        assert done.weights("best.pt").keys() == build_network(arch, 3, 16).state_dict().keys()
        assert done.finished.card.arch == arch


@shows("train", "size")
def test_size(pictures: Path, seen: Seen) -> None:
    for size in (8, 24):
        run(tiny(pictures, size=size, dry_run=True))
        assert seen.train.pop().shape[2:] == seen.val.pop().shape[2:] == (size, size)


def fed(config: TrainConfig, seen: Seen) -> torch.Tensor:
    """Return the first training batch of a dry run."""
    seen.train.clear()
    run(config)
    return seen.train[0]


@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
@shows("train", "resize")
def test_resize(tmp_path: Path, seen: Seen, rule: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (12, 30, 3), dtype=np.uint8))
    picture.save(tmp_path / "a" / "wide.png")
    picture.save(tmp_path / "b" / "wide.png")
    images = fed(tiny(tmp_path, resize=rule, size=16, val_split=0, dry_run=True), seen)
    expected = transform(np.asarray(picture), Preprocess(size=16, resize=16, rule=rule))
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), expected)
    others = [Preprocess(size=16, resize=16, rule=other) for other in ("crop", "squash", "pad") if other != rule]
    assert not any(np.array_equal(expected, transform(np.asarray(picture), other)) for other in others)


@shows("train", "augment")
def test_augment(pictures: Path, seen: Seen) -> None:
    """No two kinds feed the network the same, at small and at large input sizes."""
    for size in (16, 48):
        kinds = ("none", "light", "standard", "strong")
        batches = [fed(tiny(pictures, augment=kind, size=size, dry_run=True), seen) for kind in kinds]
        for index, first in enumerate(batches):
            assert not any(torch.equal(first, second) for second in batches[:index])


@shows("train", "rotate")
def test_rotate(pictures: Path, seen: Seen) -> None:
    straight, turned = (fed(tiny(pictures, rotate=angle, dry_run=True), seen) for angle in (0, 90))
    assert not torch.equal(straight, turned)
    assert torch.equal(straight, fed(tiny(pictures, dry_run=True), seen))


@shows("train", "color_jitter")
def test_color_jitter(pictures: Path, seen: Seen) -> None:
    plain, varied = (
        fed(tiny(pictures, color_jitter=strength, dry_run=True), seen).float().mean((1, 2, 3)) for strength in (0, 0.9)
    )
    assert (plain - varied).abs().min() > 0
    assert (plain - varied).abs().max() > 20  # levels: brightness has changed


@shows("train", "flip")
def test_flip(pictures: Path, seen: Seen) -> None:
    """With light augmentation of small images, mirroring is all there is."""
    plain = fed(tiny(pictures, augment="none", dry_run=True), seen)
    assert torch.equal(fed(tiny(pictures, augment="light", flip=False, dry_run=True), seen), plain)
    for asked in ({"flip": True}, {}):
        images = fed(tiny(pictures, augment="light", dry_run=True, **asked), seen)
        mirrored = [torch.equal(image, before.flip(2)) for image, before in zip(images, plain, strict=True)]
        kept = [torch.equal(image, before) for image, before in zip(images, plain, strict=True)]
        assert any(mirrored)
        assert any(kept)
        assert [a != b for a, b in zip(mirrored, kept, strict=True)] == [True] * 8


def digits(root: str) -> Source:
    """Stand in for a data set of digits."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    listing = Listing("mnist/train", ArrayImages.of("train", pixels), np.arange(16) % 2, ("0", "1"))
    return Source(f"mnist in {root}", {"train": lambda: listing}, dataset="mnist")


def test_flip_is_off_for_digits_unless_asked(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setitem(registry.DATASETS, "mnist", f"{__name__}:digits")
    plain, auto, asked = (
        fed(tiny("mnist", dry_run=True, **options), seen)
        for options in ({"augment": "none"}, {"augment": "light"}, {"augment": "light", "flip": True})
    )
    assert torch.equal(plain, auto)
    assert not torch.equal(plain, asked)
    flip = decide_inputs(tiny("mnist", augment="light")).decided.flip
    assert flip == Choice("flip", False, "mnist shows digits")


@shows("train", "alternate_flip")
def test_alternate_flip(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    """Half of the images are mirrored in the odd epochs, the others in the even ones."""
    run(tiny(pictures, alternate_flip=True, epochs=3, batch_size=24, out=str(tmp_path)))
    plain = {np.asarray(Image.open(path)).tobytes() for path in pictures.glob("train/*/*.png")}
    kept = []
    for images in seen.train:
        straight, mirrored = (
            {image.permute(1, 2, 0).contiguous().numpy().tobytes() for image in turned} & plain
            for turned in (images, images.flip(3))
        )
        assert straight | mirrored == plain
        kept.append(straight)
    assert kept[0] == kept[2] == plain - kept[1]
    assert 4 < len(kept[0]) < 20


def test_a_cutout_larger_than_the_input_is_refused(pictures: Path) -> None:
    run(tiny(pictures, cutout=16, size=16, dry_run=True))
    with pytest.raises(UsageError, match=r"^--cutout 17: the input has 16 px; type for example --cutout 4$"):
        run(tiny(pictures, cutout=17, size=16, dry_run=True))


@shows("train", "cutout")
def test_cutout(pictures: Path, seen: Seen) -> None:
    """A square of the mean colour lies somewhere in each image; at the border it is cut off."""
    plain, covered = (fed(tiny(pictures, cutout=side, dry_run=True), seen) for side in (0, 6))
    fill = torch.tensor(Preprocess(size=16, resize=16).fill, dtype=torch.uint8)
    places = set()
    for image, before in zip(covered, plain, strict=True):
        rows, columns = (image != before).any(0).nonzero(as_tuple=True)
        top, left = int(rows.min()), int(columns.min())
        height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
        assert 3 <= height <= 6
        assert 3 <= width <= 6
        assert (image[:, top : top + height, left : left + width] == fill[:, None, None]).all()
        places.add((top, left))
    assert len(places) > 4


@shows("train", "decode")
def test_decode(tmp_path: Path, seen: Seen) -> None:
    """Validation sees what all later commands will see, because the checkpoint says how to decode."""
    data = draw(
        tmp_path / "data", {f"{split}/{name}": 1 for split in ("train", "val") for name in ("blue", "red")}, 120
    )
    answers = {}
    for kind in ("full", "scaled"):
        done = run(tiny(data, decode=kind, size=24, out=str(tmp_path / kind)))
        preprocess = done.finished.card.preprocess
        assert preprocess.decode == kind
        expected = np.stack([read(str(data / "val" / name / "000.png"), preprocess) for name in ("blue", "red")])
        assert np.array_equal(seen.val[-1].permute(0, 2, 3, 1).numpy(), expected)
        answers[kind] = expected
    assert not np.array_equal(answers["full"], answers["scaled"])


@shows("train", "batch_size")
def test_batch_size(pictures: Path, seen: Seen) -> None:
    for size in (3, 5):
        assert len(fed(tiny(pictures, batch_size=size, dry_run=True), seen)) == size
        assert len(seen.val[-1]) == size


@shows("train", "val_split")
def test_val_split(tmp_path: Path) -> None:
    data = draw(tmp_path / "flat", {"blue": 10, "red": 10})
    for share, images in ((0.1, {"train": 18, "val": 2}), (0.3, {"train": 14, "val": 6}), (0, {"train": 20})):
        done = run(tiny(data, val_split=share, dry_run=True))
        assert started(done.events).images == images
        said = "no validation images: the last epoch counts as the best"
        assert (said in warnings(done.events)) == (share == 0)


@shows("train", "limit")
def test_limit(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    done = run(tiny(pictures, limit=5, out=str(tmp_path / "run")))
    assert started(done.events).images == {"train": 5, "val": 5}
    assert sum(map(len, seen.train)) == 5


@shows("train", "workers")
def test_workers(tmp_path: Path) -> None:
    """The loader processes that are alive while training are as many as asked for."""
    data = draw(tmp_path / "flat", {"blue": 4, "red": 4})
    alive: list[int] = []

    def look(event: Event) -> None:
        alive.append(len(multiprocessing.active_children()))

    for count in (0, 2):
        before = len(multiprocessing.active_children())
        run(tiny(data, workers=count, val_split=0, batch_size=2, out=str(tmp_path / f"{count}")), look)
        assert alive[-1] - before == count


@shows("train", "seed")
def test_seed(pictures: Path, seen: Seen) -> None:
    """The seed decides the first weights, the order and the augmentation, and nothing else does."""
    orders, firsts, changed = [], [], []
    for seed in (0, 0, 1):
        orders.append(fed(tiny(pictures, seed=seed, dry_run=True), seen))
        changed.append(fed(tiny(pictures, seed=seed, augment="standard", batch_size=24, dry_run=True), seen))
        firsts.append(built(tiny(pictures, seed=seed)).model.state_dict())
        torch.rand(3)  # other users of the global generator change nothing
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert same(firsts[0], firsts[1])
    assert not same(firsts[0], firsts[2])
    assert torch.equal(changed[0], changed[1])


def test_the_seed_decides_the_hold_out(tmp_path: Path) -> None:
    data = draw(tmp_path / "flat", {"blue": 10, "red": 10})
    chosen = [decide_inputs(tiny(data, seed=seed)).splits.holdout.tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


# Network -------------------------------------------------------------------------------------------------------------

SMALL = "squeezenet1_1"  # the smallest network with published weights


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch hub cache that holds "published" weights of one network."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(5)
    recipe = families.published(SMALL)
    assert recipe is not None
    name = recipe.url.rsplit("/", 1)[-1]
    torch.save(build_network(SMALL, 1000, 224).state_dict(), folder / "hub" / "checkpoints" / name)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network."""

    def refuse(*args: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "download", refuse)


@pytest.mark.usefixtures("offline")
@shows("train", "pretrained")
def test_pretrained(pictures: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for: used, or an error. Not asked for: used from 96 px on, or a warning. Refused: not looked for."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(hub / "hub"))
    recipe = families.published(SMALL)
    assert recipe is not None
    published = torch.load(next((hub / "hub" / "checkpoints").iterdir()), weights_only=True)

    def starts_from_them(**asked: Any) -> bool:
        b = built(tiny(pictures, arch=SMALL, **asked))
        used = b.run.card.pretrained.used
        name = "features.3.squeeze.weight"
        equal = torch.equal(b.model.network.state_dict()[name], published[name])
        assert equal == (used == f"torchvision {recipe.name}") == (used is not None)
        return equal

    assert starts_from_them(pretrained=True, size=32)
    assert starts_from_them(size=96)
    assert not starts_from_them(size=95)
    assert not starts_from_them(pretrained=False, size=96)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "empty"))
    assert not starts_from_them(size=96)
    with pytest.raises(CheckpointError, match=r"--pretrained: .* \(no network\)"):
        starts_from_them(pretrained=True, size=96)


@pytest.mark.usefixtures("offline")
def test_missing_weights_cannot_be_overlooked(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at the start, on every epoch line, and kept in the checkpoint and config.json."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "empty"))
    done = run(tiny(pictures, arch=SMALL, size=96, limit=3, out=str(tmp_path / "run")))
    assert any(text.startswith("TRAINING FROM SCRATCH, without pretrained weights") for text in warnings(done.events))
    assert all(event.weights_missing for event in of(done.events, EpochEnded))
    assert done.finished.card.pretrained.asked == "auto"
    assert "no network" in done.finished.card.pretrained.reason
    assert "from scratch" in (done.folder / "config.json").read_text()


@shows("train", "weights")
def test_weights(pictures: Path, tmp_path: Path) -> None:
    """A run starts from another's checkpoint, or from a bare state dict with a new head."""
    first = run(tiny(pictures, out=str(tmp_path / "first"), seed=3))
    b = built(tiny(pictures, weights=str(first.folder / "best.pt")))
    assert same(b.model.network.state_dict(), first.weights("best.pt"))
    bare = tmp_path / "bare.pt"
    torch.save(first.weights("best.pt"), bare)
    b = built(tiny(pictures, weights=str(bare)))
    equal = {name: torch.equal(b.model.network.state_dict()[name], w) for name, w in first.weights().items()}
    assert equal == {"0.weight": True, "0.bias": True, "4.weight": False, "4.bias": False}


def test_weights_give_size_and_normalisation_too(pictures: Path, tmp_path: Path) -> None:
    first = run(tiny(pictures, out=str(tmp_path / "first"), size=20))
    assert decide_inputs(tiny(pictures, weights=str(first.folder / "best.pt"))).preprocess.size == 20


@shows("train", "stem")
def test_stem(pictures: Path, seen: Seen) -> None:
    for stem, kernel in (("small", (3, 3)), ("standard", (7, 7)), ("auto", (3, 3))):
        network: Any = built(tiny(pictures, arch="resnet18", stem=stem)).model.network
        assert network.conv1.kernel_size == kernel
    b = built(tiny(pictures, arch="resnet9-half"))
    assert b.run.card.arch_options["stem"] == "standard", "made for small images, it has no other"


@shows("train", "dropout")
def test_dropout(pictures: Path) -> None:
    """In training the network forgets, in validation it does not."""
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    for probability, forgets in ((0.9, True), ("auto", False)):
        model = built(tiny(pictures, dropout=probability)).model
        assert torch.equal(model.train()(images), model(images)) != forgets
        assert torch.equal(model.eval()(images), model(images))


# Optimisation and run ------------------------------------------------------------------------------------------------


@shows("train", "epochs")
def test_epochs(pictures: Path, tmp_path: Path) -> None:
    done = run(tiny(pictures, epochs=3, out=str(tmp_path / "run")))
    assert [row["epoch"] for row in done.history] == [1, 2, 3]
    assert [row["step"] for row in done.history] == [3, 6, 9]
    assert done.finished.epochs_run == 3


@shows("train", "amp")
def test_amp(pictures: Path) -> None:
    """Refused without CUDA, also when the device is found only later."""
    with pytest.raises(UsageError, match="--amp needs CUDA"):
        run(tiny(pictures, amp=True, dry_run=True))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="--amp needs CUDA, and this runs on"):
            run(tiny(pictures, amp=True, device="auto", dry_run=True))
    found = {choice.name: choice.value for choice in started(run(tiny(pictures, dry_run=True)).events).choices}
    assert found["precision"] == "float32"


@pytest.fixture
def precisions(monkeypatch: pytest.MonkeyPatch) -> dict[bool, set[torch.dtype]]:
    """What the convolutions compute in: in training (True) and in validation (False)."""
    kinds: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    forward = nn.Conv2d.forward

    def watched(layer: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        answer = forward(layer, images)
        kinds[layer.training].add(answer.dtype)
        return answer

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    return kinds


def test_mixed_precision_is_for_training_only(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precisions: dict[bool, set[torch.dtype]]
) -> None:
    """As if this CPU had asked for bf16."""
    bf16 = torch.bfloat16, Choice("precision", "bf16 mixed", "planted")
    monkeypatch.setattr(build_module, "choose_amp", lambda asked, device: bf16)
    run(tiny(pictures, limit=8, out=str(tmp_path)))
    assert precisions == {True: {torch.bfloat16}, False: {torch.float32}}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("asked", ["auto", True, False])
def test_amp_on_cuda(pictures: Path, tmp_path: Path, precisions: dict[bool, set[torch.dtype]], asked: Any) -> None:
    """Mixed precision by default and not with --no-amp; validation is in float32."""
    run(tiny(pictures, amp=asked, device="cuda", out=str(tmp_path)))
    assert precisions[False] == {torch.float32}
    assert (precisions[True] <= {torch.bfloat16, torch.float16}) == (asked is not False)


class Compiled(nn.Module):
    """Stand in for what torch.compile returns: another module around the same one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod, self.shapes = module, list[torch.Size]()

    def forward(self, images: torch.Tensor) -> Any:
        self.shapes.append(images.shape)
        return self._orig_mod(images)


@shows("train", "compile")
def test_compile(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    """Training goes through torch.compile; validation does not, and the checkpoint knows nothing of it."""
    made: list[Compiled] = []

    def compiled(module: nn.Module, **_: Any) -> nn.Module:
        made.append(Compiled(module))
        return made[-1]

    monkeypatch.setattr(torch, "compile", compiled)
    plain = run(tiny(pictures, ema=True, out=str(tmp_path / "plain")))
    assert not made
    seen.train.clear()
    seen.val.clear()
    done = run(tiny(pictures, ema=True, compile=True, out=str(tmp_path / "compiled")))
    assert [module.shapes for module in made] == [[images.shape for images in seen.train]]
    assert len(seen.train) == 3
    assert len(seen.val) == 2 + 2, "tried and measured, through the model itself"
    for name in ("last.pt", "best.pt"):
        assert same(done.weights(name), plain.weights(name))


def test_a_network_that_cannot_be_compiled_is_one_line(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(nn.Module):
        def forward(self, images: torch.Tensor) -> None:
            raise torch._dynamo.exc.TorchDynamoException("no compiler\nand more")

    monkeypatch.setattr(torch, "compile", lambda module, **_: Refusing())
    with pytest.raises(UsageError, match=r"^--compile: torch cannot compile this here \(no compiler\); drop it$"):
        run(tiny(pictures, compile=True, dry_run=True))


@pytest.mark.parametrize(("asked", "last"), [("auto", True), (True, True), (False, False)])
@shows("train", "channels_last")
def test_channels_last(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any, last: bool) -> None:
    """The second convolution sees weights and images in the order asked for, in training and in validation."""
    found: set[tuple[bool, ...]] = set()
    forward = nn.Conv2d.forward

    def watched(layer: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if layer.in_channels == 32:
            kinds = (part.is_contiguous(memory_format=torch.channels_last) for part in (images, layer.weight))
            found.add((layer.training, *kinds))
        return forward(layer, images)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    run(tiny(pictures, arch="small-cnn", channels_last=asked, out=str(tmp_path)))
    assert found == {(True, last, last), (False, last, last)}


@shows("train", "sync_bn")
def test_sync_bn(pictures: Path) -> None:
    for extra in ({}, {"device": "auto"}):
        with pytest.raises(UsageError, match="--sync-bn is for several GPUs: start it under torchrun, or drop it"):
            run(tiny(pictures, arch="bn-cnn", sync_bn=True, dry_run=True, **extra))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_sync_bn_on_cuda(pictures: Path) -> None:
    """As the first of two processes would build it."""
    config = tiny(pictures, arch="bn-cnn", sync_bn=True, device="cuda")
    compute = choose_compute(config, World(rank=0, size=2))
    _, model, _, _ = build(config, compute, decide_inputs(config))
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 6
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in norms)
    assert model.network.state_dict().keys() == build_network("bn-cnn", 3, 16).state_dict().keys()


@pytest.fixture
def undetermined() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("undetermined")
@shows("train", "deterministic")
def test_deterministic(pictures: Path) -> None:
    during: list[bool] = []

    def look(event: Event) -> None:
        during.append(torch.are_deterministic_algorithms_enabled())

    for asked in (False, True):
        run(tiny(pictures, deterministic=asked, dry_run=True), look)
        assert during[-1] is asked


@pytest.mark.usefixtures("undetermined")
def test_deterministic_is_no_hindrance(pictures: Path, tmp_path: Path) -> None:
    run(tiny(pictures, arch="bn-cnn", deterministic=True, limit=6, out=str(tmp_path / "run")))


@shows("train", "device")
def test_device(pictures: Path, seen: Seen) -> None:
    event = started(run(tiny(pictures, device="cpu", dry_run=True)).events)
    assert (str(event.device.value).split()[0], event.device.reason) == ("cpu", "as asked")
    assert seen.train[0].device.type == "cpu"
    auto = started(run(tiny(pictures, device="auto", dry_run=True)).events)
    assert seen.train[-1].device.type == choose_device("auto")[0].type
    assert auto.device.reason != "as asked"
    with pytest.raises(UsageError, match="--device cuda:99: this machine has"):
        run(tiny(pictures, device="cuda:99", dry_run=True))
