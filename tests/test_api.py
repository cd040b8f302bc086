"""imgcls from Python: train, evaluate, load and predict, as its docstring shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawing import draw_tree
from PIL import Image

import imgcls
from imgcls import machine
from imgcls.errors import ImgclsError, UsageError
from imgcls.events import EpochEnded, Event, Finished


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    return draw_tree(root, {"train/cat": 6, "train/dog": 6, "val/cat": 3, "val/dog": 2}, size=(16, 16))


def settings(data: Path, out: Path) -> imgcls.TrainConfig:
    common: dict[str, Any] = {"batch_size": 4, "workers": 0, "device": "cpu"}
    return imgcls.TrainConfig(data=str(data), arch="simple-cnn", epochs=2, out=str(out), **common)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return imgcls.train(settings(data, tmp_path_factory.mktemp("run")))


def test_train_returns_where_the_best_checkpoint_is(trained: Finished) -> None:
    assert trained.best is not None
    assert Path(trained.best).is_file()
    assert trained.card.classes == ("cat", "dog")
    assert trained.epochs_run == 2


def test_train_reports_events(data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    imgcls.train(settings(data, tmp_path / "run"), events.append)
    assert [event.metrics["epoch"] for event in events if isinstance(event, EpochEnded)] == [1, 2]


def test_nothing_below_the_command_line_prints(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = imgcls.train(settings(data, tmp_path / "run"))
    assert done.best is not None
    imgcls.evaluate(str(data), done.best, workers=0, device="cpu")
    list(imgcls.load(done.best, device="cpu").predict([str(data / "val" / "cat" / "000.png")]))
    assert capfd.readouterr() == ("", "")


def test_evaluate_gives_the_stored_accuracy(data: Path, trained: Finished) -> None:
    assert trained.best is not None
    report = imgcls.evaluate(data, Path(trained.best), device="cpu", workers=0)
    assert (report.split, report.images) == ("val", 5)
    assert report.accuracy == trained.card.metrics["accuracy"]


def test_load_and_predict(data: Path, trained: Finished) -> None:
    assert trained.best is not None
    model = imgcls.load(trained.best, device="cpu")
    paths = [str(data / "val" / "cat" / "000.png"), str(data / "nothing.png"), str(data / "val" / "dog" / "001.png")]
    first, second, third = model.predict(paths, top_k=2)
    for prediction in (first, third):
        assert prediction.class_name in ("cat", "dog")
        assert prediction.confidence is not None
        assert prediction.top is not None
        assert 0.5 <= prediction.confidence <= 1
        assert sum(score.confidence for score in prediction.top) == pytest.approx(1)
    assert (second.path, second.class_name) == (paths[1], None)
    assert second.error is not None


def test_predict_takes_what_the_command_line_takes(data: Path, trained: Finished, tmp_path: Path) -> None:
    assert trained.best is not None
    ckpt, folder = Path(trained.best), data / "val" / "cat"
    names = [str(folder / f"{number:03d}.png") for number in range(3)]
    by_folder = imgcls.predict(folder, ckpt, device="cpu")
    assert [answer.path for answer in by_folder] == names
    assert imgcls.predict(f"{folder}/*.png", ckpt, device="cpu") == by_folder
    assert imgcls.predict([folder / "000.png", *names[1:]], ckpt, device="cpu") == by_folder
    with Image.open(names[0]) as image:
        (answer,) = imgcls.predict(image, ckpt, device="cpu", top_k=2)
    assert answer.class_name == by_folder[0].class_name
    assert answer.confidence == pytest.approx(by_folder[0].confidence, abs=1e-6), "alone in its batch"
    with pytest.raises(UsageError, match="no images found"):
        imgcls.predict(tmp_path, ckpt, device="cpu")


def test_export_takes_paths_and_says_what_it_compared(trained: Finished, tmp_path: Path) -> None:
    assert trained.best is not None
    done = imgcls.export(Path(trained.best), "pt2", output=tmp_path / "model.pt2")
    assert (done.format, done.path) == ("pt2", str(tmp_path / "model.pt2"))
    assert done.probability_difference < 1e-4


@pytest.mark.parametrize("call", ["train", "load", "evaluate", "export"])
def test_torch_computes_with_no_more_threads_than_cpus(
    data: Path, trained: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """On a machine whose quota of time is worth one CPU; the program's other numbers stay."""
    assert trained.best is not None
    calls: dict[str, Callable[[], object]] = {
        "train": lambda: imgcls.train(replace(settings(data, tmp_path / "run"), epochs=1)),
        "load": lambda: imgcls.load(str(trained.best), device="cpu"),
        "evaluate": lambda: imgcls.evaluate(data, str(trained.best), device="cpu", workers=0),
        "export": lambda: imgcls.export(str(tmp_path / "none.pt"), "onnx"),
    }
    for name in machine.THREAD_NUMBERS:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(machine, "available_cpus", lambda: 1)
        with suppress(UsageError):
            calls[call]()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"split": "tset"}, r"--split tset: not known \(did you mean 'test'\?\)"),
        ({"batch_size": 0}, "--batch-size 0: must be 1 or more"),
        ({"workers": -1}, "--workers -1: must be 0 or more"),
        ({"limit": 0}, "--limit 0: must be 1 or more"),
        ({"threshold": 2.0}, "--threshold 2.0: must be 0 to 1"),
    ],
)
def test_evaluate_refuses_what_its_options_refuse(
    data: Path, trained: Finished, option: dict[str, Any], sentence: str
) -> None:
    assert trained.best is not None
    with pytest.raises(UsageError, match=sentence):
        imgcls.evaluate(data, trained.best, device="cpu", **option)


def test_expected_failures_have_one_base(data: Path) -> None:
    with pytest.raises(ImgclsError):
        imgcls.load("nothing.pt")
    with pytest.raises(ImgclsError):
        imgcls.TrainConfig(epochs=0)


def test_the_public_names() -> None:
    functions = ["evaluate", "export", "load", "predict", "train"]
    assert imgcls.__all__ == ["TrainConfig", "__version__", *functions]
    assert dir(imgcls) == imgcls.__all__, "what a prompt offers after a dot"
    assert all(getattr(imgcls, name) is not None for name in imgcls.__all__)
    with pytest.raises(AttributeError, match="module 'imgcls' has no attribute 'trian'"):
        _ = imgcls.trian


def test_importing_is_cheap() -> None:
    script = "import sys, imgcls; assert not {'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_name_stays_a_function_after_its_module_is_imported() -> None:
    import imgcls.engine.train
    import imgcls.exporters.export

    for name in ("train", "evaluate", "predict", "export", "load"):
        assert callable(getattr(imgcls, name))
