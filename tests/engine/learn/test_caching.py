"""What is done once, decoded images and features of a frozen backbone, changes no result."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from carrying import shows
from loading import AUGMENTATIONS, LARGE, PREPROCESS, decoded, in_files, loader
from loading import equal as equal_batches
from PIL import Image
from small_runs import COLOURS, Built, Killed, Run, Seen, built, close, kill_in, of, run, same, started, tiny
from torch import nn

from imgcls import checkpoint, registry
from imgcls.data import images as images_module
from imgcls.data.batch import Data
from imgcls.data.files import FileLoader
from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing, Source
from imgcls.data.memory import FeatureLoader, FrameLoader, from_store
from imgcls.distributed import World
from imgcls.engine import train as train_module
from imgcls.engine.assess.evaluate import evaluate
from imgcls.engine.decide import build as build_module
from imgcls.engine.learn import caching
from imgcls.engine.learn.caching import cached, with_features
from imgcls.errors import DataError
from imgcls.events import Event, Pace, Report, Said, Stepped, silent
from imgcls.models.classifier import build_network
from imgcls.models.surgery import head, last_layers
from imgcls.pixels.decode import decode
from imgcls.schema import Choice, Preprocess

pytest_plugins = ("small_runs",)

TIMED = ("seconds", "images_per_second", "data_wait")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `--cache disk` writes: not the cache of whoever runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imgcls"


def curve(done: Run) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what a clock measured."""
    return [{key: row[key] for key in row if key not in TIMED} for row in done.history]


def equal(first: Run, second: Run) -> bool:
    """Tell whether two runs have the same curves and end with the same weights, bit by bit."""
    return curve(first) == curve(second) and same(first.weights(), second.weights())


def said(events: list[Event]) -> str:
    return "\n".join(event.text for event in of(events, Said))


# Decoded images -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of all sizes, some so large that random crops take them at half their size."""
    root, generator = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for number in range(count):
            for name, colour in COLOURS.items():
                (root / split / name).mkdir(parents=True, exist_ok=True)
                shape = (60 + 25 * number, 90 + 23 * number, 3)
                pixels = (np.array(colour) + generator.normal(0, 40, shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.{'png' if number % 2 else 'jpg'}")
    return root


def arrays(root: str) -> Source:
    """Stand in for a data set that is in memory from the start."""

    def listing(split: str, count: int) -> Listing:
        pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return Listing(f"cifar10/{split}", ArrayImages.of(split, pixels), np.arange(count) % 2, ("cat", "dog"))

    parts = {"train": lambda: listing("train", 14), "test": lambda: listing("test", 7)}
    return Source(f"cifar10 in {root}", parts, dataset="cifar10")


CACHED: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("pictures", {"augment": "standard"}),
    "turned": (
        "pictures",
        {"augment": "light", "rotate": 20, "color_jitter": 0.3, "cutout": 4, "alternate_flip": True},
    ),
    "none": ("pictures", {"augment": "none"}),
    "strong": ("pictures", {"augment": "strong"}),
    "crops": ("large", {"augment": "standard", "size": 48}),
    "crops, strong": ("large", {"augment": "strong", "size": 48, "resize": "pad"}),
    "whole": ("large", {"augment": "none", "size": 48, "decode": "scaled"}),
    "arrays": ("cifar10", {"augment": "standard"}),
}


@pytest.mark.parametrize("kind", CACHED)
def test_neither_cache_nor_loader_processes_change_a_result(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, accuracies and weights are equal bit by bit."""
    monkeypatch.setitem(registry.DATASETS, "cifar10", f"{__name__}:arrays")
    name, asked = CACHED[kind]
    data = name if name in registry.DATASETS else request.getfixturevalue(name)
    asked = {"arch": "small-cnn", "dropout": 0.2, "epochs": 2, "batch_size": 5, "limit": 13} | asked

    def trained(where: str, workers: int) -> Run:
        return run(tiny(data, **asked, cache=where, workers=workers, out=str(tmp_path / f"{where} {workers}")))

    plain = trained("off", 0)
    for where, workers in (("off", 2), ("memory", 0), ("memory", 2), ("disk", 0), ("disk", 1)):
        done = trained(where, workers)
        assert ("cache:" in said(done.events)) == (where != "off")
        assert equal(done, plain), (where, workers)
    assert cache_folder.exists() == (kind != "arrays"), "arrays are decoded already"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each training picture was decoded; two batches of validation are always tried before."""
    count: Counter[str] = Counter()

    def counting(path: str, **options: Any) -> Any:
        if "/train/" in path:
            count[path] += 1
        return decode(path, **options)

    monkeypatch.setattr(images_module, "decode", counting)
    return count


@pytest.mark.parametrize(("where", "times"), [("off", 3), ("memory", 1), ("disk", 1)])
@shows("train", "cache")
def test_images_are_decoded_once_with_a_cache_and_in_each_epoch_without(
    pictures: Path, tmp_path: Path, decodings: Counter[str], where: str, times: int
) -> None:
    run(tiny(pictures, cache=where, augment="standard", epochs=3, out=str(tmp_path / "run")))
    assert list(decodings.values()) == [times] * 24


def test_a_second_run_decodes_nothing_when_the_cache_is_on_disk(
    pictures: Path, tmp_path: Path, cache_folder: Path, decodings: Counter[str]
) -> None:
    first, second = (
        run(tiny(pictures, cache="disk", augment="standard", seed=0, out=str(tmp_path / name))) for name in "ab"
    )
    assert set(decodings.values()) == {1}
    assert len(list(cache_folder.iterdir())) == 2, "one file for the training images, one for the others"
    assert str(cache_folder) in said(second.events)
    assert equal(first, second)
    run(tiny(pictures, cache="disk", augment="none", seed=1, lr=0.1, out=str(tmp_path / "c")))  # the same pixels
    assert set(decodings.values()) == {1}
    run(tiny(pictures, cache="disk", size=12, out=str(tmp_path / "d")))
    assert set(decodings.values()) == {2}, "frames of another size"


def test_a_dry_run_reads_no_cache(pictures: Path, cache_folder: Path, decodings: Counter[str]) -> None:
    for where in ("memory", "disk"):
        decodings.clear()
        done = run(tiny(pictures, cache=where, dry_run=True))
        assert decodings.total() == 16, "two batches"
        assert "cache:" not in said(done.events)
    assert not cache_folder.exists()


@pytest.mark.parametrize(("free", "place"), [(2 * 36 * 768, "memory"), (2 * 36 * 768 - 4, "off")])
def test_images_are_kept_in_memory_when_they_take_at_most_half_of_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decodings: Counter[str], free: float, place: str
) -> None:
    """36 frames of 16 x 16 x 3 bytes."""
    plain = run(tiny(pictures, cache="off", epochs=2, out=str(tmp_path / "plain")))
    decodings.clear()
    monkeypatch.setattr(build_module, "free_memory", lambda: int(free))
    done = run(tiny(pictures, epochs=2, out=str(tmp_path / "run")))
    (choice,) = [choice for choice in started(done.events).choices if choice.name == "cache"]
    assert choice.value == place
    assert ("half of the free memory is" in choice.reason) == (place == "off")
    assert set(decodings.values()) == {1 if place == "memory" else 2}
    assert equal(done, plain)


@pytest.mark.parametrize("room", [1000, 24 * 768 + 1000], ids=["no image set fits", "the validation images do not"])
def test_a_cache_that_turns_out_too_large_is_given_up(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    plain = run(tiny(pictures, cache="off", augment="standard", epochs=2, out=str(tmp_path / "plain")))
    monkeypatch.setattr(caching, "free_memory", lambda: 2 * room)
    done = run(tiny(pictures, cache="memory", augment="standard", epochs=2, out=str(tmp_path / "run")))
    assert "do not fit half of the free memory: they are decoded anew in each epoch" in said(done.events)
    assert "cache:" not in said(done.events)
    assert equal(done, plain)


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("where", ["memory", "disk", "off"])
def test_an_unreadable_image_ends_the_run_with_its_name(
    pictures: Path, tmp_path: Path, cache_folder: Path, where: str, size: int
) -> None:
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    damaged = data / "train" / "red" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(DataError, match=r"red/003\.png: .*: replace or remove the file") as caught:
        run(tiny(data, cache=where, size=size, augment="standard", out=str(tmp_path / "run")))
    assert "\n" not in str(caught.value)
    assert not cache_folder.exists() or not list(cache_folder.iterdir()), "no half a file stays behind"


def test_a_run_may_be_resumed_with_another_cache(pictures: Path, tmp_path: Path) -> None:
    asked = {"augment": "strong", "dropout": 0.5, "epochs": 3, "limit": 12}
    straight = run(tiny(pictures, **asked, cache="memory", out=str(tmp_path / "straight")))
    with pytest.raises(Killed):
        run(tiny(pictures, **asked, cache="memory", out=str(tmp_path / "cut")), kill_in(2))
    for where in ("disk", "off"):
        folder = Path(shutil.copytree(tmp_path / "cut", tmp_path / where))
        assert equal(run(tiny(pictures, **asked, cache=where, resume=True, out=str(folder))), straight)


def test_decoding_reports_its_progress(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "Pace", lambda: Pace(seconds=-1))
    done = run(tiny(pictures, cache="memory", batch_size=5, out=str(tmp_path)))
    steps = [(event.batch, event.batches) for event in of(done.events, Stepped) if event.phase == "decoding"]
    assert steps == [(4, 5), (2, 3)]  # whole batches of 24 and 12 images


# Features of a frozen backbone ----------------------------------------------------------------------------------------

FROZEN: dict[str, Any] = {"freeze_epochs": "all", "epochs": 3, "pretrained": False, "lr": 0.01}
ONCE = "features of the frozen backbone computed once"


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Train with the backbone running in every epoch."""

    def trained(*arguments: Any, **options: Any) -> Run:
        with monkeypatch.context() as patch:
            patch.setattr(caching, "with_features", lambda data, *rest: data)
            return run(*arguments, **options)

    return trained


def test_the_backbone_runs_once_over_each_image(
    pictures: Path, tmp_path: Path, seen: Seen, running: Callable[..., Run]
) -> None:
    """Two batches of validation are tried first; 24 and 12 images are 3 and 2 batches."""
    done = run(tiny(pictures, **FROZEN, out=str(tmp_path / "once")))
    assert ONCE in said(done.events)
    assert len(seen.train) + len(seen.val) == 2 + 3 + 2
    seen.val.clear()
    assert ONCE not in said(running(tiny(pictures, **FROZEN, out=str(tmp_path / "running"))).events)
    assert len(seen.train) + len(seen.val) == 2 + 3 * (3 + 2)


def measured(arch: str, path: Path) -> Path:
    """Save weights with BatchNorm statistics; with those of a fresh network the features are next to nothing."""
    torch.manual_seed(0)
    network = build_network(arch, 3, 32).train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    network(torch.randn(24, 3, 32, 32))
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("arch", "asked"),
    [
        ("small-cnn", {}),
        ("small-cnn", {"dropout": 0.5, "accumulate": 2, "batch_size": 5, "class_weights": "balanced", "workers": 2}),
        ("bn-cnn", {"ema": True}),
        ("mobilenet_v3_small", {"size": 32, "ema": True, "weights": "published", "pretrained": None}),
        ("squeezenet1_1", {"size": 64, "lr": 1e-3}),  # a convolution is the head: its features have height and width
        ("squeezenet1_1", {"size": 64, "lr": 1e-3, "ema": True, "channels_last": False, "cache": "off"}),
    ],
    ids=str,
)
def test_the_curve_equals_that_with_the_backbone_running(
    pictures: Path, tmp_path: Path, running: Callable[..., Run], arch: str, asked: dict[str, Any]
) -> None:
    asked = FROZEN | {"arch": arch} | asked
    if "weights" in asked:
        asked["weights"] = str(measured(arch, tmp_path / "published.pt"))
    expected = running(tiny(pictures, **asked, out=str(tmp_path / "running")))
    done = run(tiny(pictures, **asked, out=str(tmp_path / "once")))
    assert ONCE in said(done.events)
    for ours, theirs in zip(curve(done), curve(expected), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for name in ("last.pt", "best.pt"):
        assert close(done.weights(name), expected.weights(name), 1e-5)
    assert abs(curve(done)[0]["train_loss"] - curve(done)[2]["train_loss"]) > 1e-3, "nothing was learnt"


@pytest.mark.parametrize("ema", [False, True])
def test_the_checkpoint_evaluates_to_the_accuracy_it_was_kept_for(pictures: Path, tmp_path: Path, ema: bool) -> None:
    done = run(tiny(pictures, **FROZEN | {"lr": 1e-3}, arch="squeezenet1_1", size=32, ema=ema, out=str(tmp_path)))
    assert len({row["val_loss"] for row in done.history}) == 3
    for name in ("best.pt", "last.pt"):
        report = evaluate(str(pictures), str(tmp_path / name), device="cpu", workers=0, batch_size=8)
        stated = checkpoint.load(tmp_path / name).card.metrics
        assert report.accuracy == stated["accuracy"]
        assert report.loss == pytest.approx(stated["loss"], abs=1e-5)


def test_a_resumed_run_computes_them_again(pictures: Path, tmp_path: Path) -> None:
    asked = FROZEN | {"arch": "bn-cnn", "ema": True}
    straight = run(tiny(pictures, **asked, out=str(tmp_path / "straight")))
    with pytest.raises(Killed):
        run(tiny(pictures, **asked, out=str(tmp_path / "cut")), kill_in(2))
    resumed = run(tiny(pictures, **asked, resume=True, out=str(tmp_path / "cut")))
    assert ONCE in said(resumed.events)
    assert equal(resumed, straight)
    assert same(resumed.weights("best.pt"), straight.weights("best.pt"))


def cache(b: Built, report: Report) -> Data:
    """Keep the features where that can be, and not the images."""
    off = Choice("cache", "off", "planted")
    return cached(replace(b.run, decided=replace(b.run.decided, cache=off)), b.model, b.data, report)


def caches_features(config: Any) -> bool:
    events: list[Event] = []
    found = cache(built(config), events.append).features
    assert found == (ONCE in said(events))
    return found


@pytest.mark.parametrize(
    "asked",
    [
        *({"flip": True}, {"alternate_flip": True}, {"mixup": 0.2}, {"cutmix": 1.0}, {"cutout": 4}, {"rotate": 10}),
        *({"color_jitter": 0.1}, {"augment": "light"}, {"freeze_epochs": 2}, {"freeze_epochs": 0}),
    ],
    ids=str,
)
def test_they_are_not_kept_where_epochs_differ(pictures: Path, asked: dict[str, Any]) -> None:
    assert caches_features(tiny(pictures, **FROZEN))
    assert not caches_features(tiny(pictures, **FROZEN | asked))


@pytest.mark.parametrize("rooms", [[0], [1e9, 0]], ids=["nothing", "the training images only"])
def test_they_are_not_kept_when_they_do_not_fit(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: Callable[..., Run], rooms: list[float]
) -> None:
    asked = FROZEN | {"cache": "off"}
    expected = running(tiny(pictures, **asked, out=str(tmp_path / "running")))
    left = iter(rooms)
    monkeypatch.setattr(caching, "free_device_memory", lambda device: next(left))
    done = run(tiny(pictures, **asked, out=str(tmp_path / "run")))
    assert ONCE not in said(done.events)
    assert equal(done, expected)
    assert next(left, None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda network: nn.Sequential(head(network)[1], nn.Sigmoid(), nn.Flatten()),
        lambda network: last_layers(network)[:2].append(nn.Flatten()),
    ],
    ids=["other values", "another shape"],
)
def test_they_are_not_kept_when_the_last_layers_do_not_give_the_logits(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[nn.Module], nn.Module]
) -> None:
    """As in a network whose head is not what it ends with."""
    config = tiny(pictures, **FROZEN, arch="squeezenet1_1", size=64)
    assert caches_features(config)
    monkeypatch.setattr(caching, "last_layers", wrong)
    assert not caches_features(config)


def test_computing_them_leaves_the_network_as_it_was(pictures: Path) -> None:
    b = built(tiny(pictures, **FROZEN, arch="bn-cnn"))
    before = {key: value.clone() for key, value in b.model.state_dict().items()}
    data = cache(b, silent)
    assert same(before, b.model.state_dict())
    assert not any(layer._forward_pre_hooks for layer in b.model.modules())
    (first, *_), features = data.train.epoch(1), last_layers(b.model.network).eval()
    assert (first.images.shape, first.images.dtype, first.images.requires_grad) == ((8, 512), torch.float32, False)
    images = next(b.data.train.epoch(1)).images
    torch.testing.assert_close(features(first.images), b.model.eval()(images))


@pytest.mark.parametrize("preprocess", [PREPROCESS, LARGE])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stored", [False, True])
def test_each_process_computes_those_of_all_images_as_they_are_listed(
    pictures: Path, tmp_path: Path, stored: bool, workers: int, preprocess: Preprocess
) -> None:
    """From any rank's training batches, which go on as before."""
    images, device, still = in_files(tmp_path), torch.device("cpu"), AUGMENTATIONS["none"]
    training: FileLoader | FrameLoader
    training = loader(images, 4, still, preprocess=preprocess, workers=workers, rank=1, ranks=2, seed=1)
    if stored:
        training = from_store(training, decoded(training), device)
    before = list(training.epoch(1))
    b = built(tiny(pictures, **FROZEN, arch="bn-cnn", size=preprocess.size))
    data = with_features(Data(training), b.model, World(), device, lambda event: None)
    assert isinstance(data.train, FeatureLoader)
    (listed,) = loader(images, 10, preprocess=preprocess).epoch(1)
    last = last_layers(b.model.network).eval()
    torch.testing.assert_close(last(data.train.features), b.model.eval()(listed.images))
    mine = [batch.labels for batch in data.train.epoch(1)]
    assert all(torch.equal(labels, batch.labels) for labels, batch in zip(mine, before, strict=True))
    assert all(equal_batches(one, other) for one, other in zip(before, training.epoch(1), strict=True))


def test_a_finished_run_caches_nothing(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tiny(pictures, out=str(tmp_path)))
    monkeypatch.setattr(train_module, "cached", None)
    assert run(tiny(pictures, resume=True, out=str(tmp_path))).finished.reason == "already finished"
