"""From paths to predictions, with a function in place of a network: softmax, top-k, threshold, order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from imgcls.errors import NonFiniteError, UsageError
from imgcls.inference import model as module
from imgcls.inference.model import Model, Rule, load, predict, softmax
from imgcls.pixels.transform import read
from imgcls.schema import ModelCard, Prediction, Preprocess, Pretrained


def fake(classes: tuple[str, ...], seen: list[int] | None = None) -> Model:
    """A model whose logit for a class is the mean level of one colour channel: red, green, blue."""

    def logits(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        assert images.dtype == np.uint8
        assert images.shape[1:] == (8, 8, 3)
        if seen is not None:
            seen.append(len(images))
        levels: npt.NDArray[np.float32] = images.mean(axis=(1, 2), dtype=np.float32)
        return levels[:, : len(classes)] / np.float32(32)

    card = ModelCard(
        arch="fake",
        arch_options={},
        classes=classes,
        preprocess=Preprocess(size=8, resize=8),
        pretrained=Pretrained(asked="no", used=None, reason=""),
    )
    return Model(card, logits, np.empty(0, dtype=np.int64))


COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "olive": (100, 100, 0)}


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    for name, colour in COLOURS.items():
        Image.new("RGB", (10, 10), colour).save(tmp_path / f"{name}.png")
    return {name: str(tmp_path / f"{name}.png") for name in COLOURS}


def one(model: Model, path: str, **options: object) -> Prediction:
    (answer,) = model.predict([path], **options)  # type: ignore[arg-type]
    return answer


def test_softmax_is_stable_and_sums_to_one() -> None:
    logits = np.array([[1000, 1000, 0], [-1e30, 0, 1], [0, 0, 0]], dtype=np.float32)
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float64
    assert probabilities.sum(axis=1) == pytest.approx([1, 1, 1])
    assert probabilities[0] == pytest.approx([0.5, 0.5, 0])
    assert probabilities[1, 2] == pytest.approx(np.e / (1 + np.e))
    assert logits[0, 0] == 1000, "the argument is left alone"


@pytest.mark.parametrize("workers", [0, 2, None])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_predictions_keep_the_order_with_failures_in_their_place(
    paths: dict[str, str], tmp_path: Path, batch_size: int, workers: int | None
) -> None:
    """A failed image must never shift its neighbours' answers."""
    (tmp_path / "text.jpg").write_text("no picture")
    names = ["blue", "missing", "red", "text", "text", "green", "red", "missing"]
    known = paths | {"missing": str(tmp_path / "missing.png"), "text": str(tmp_path / "text.jpg")}
    model = fake(("red", "green", "blue"))
    answers = list(model.predict([known[name] for name in names], batch_size=batch_size, workers=workers))
    assert [answer.path for answer in answers] == [known[name] for name in names]
    for name, answer in zip(names, answers, strict=True):
        if name in COLOURS:
            assert (answer.class_name, answer.error) == (name, None)
        else:
            assert (answer.class_name, answer.confidence, answer.top) == (None, None, None)
            assert answer.error
            assert answer.error.startswith(known[name])


def test_a_batch_of_failures_only_never_reaches_the_network(tmp_path: Path) -> None:
    seen: list[int] = []
    answers = list(fake(("red", "green"), seen).predict([str(tmp_path / f"{n}.jpg") for n in range(3)]))
    assert len(answers) == 3
    assert seen == []


def test_no_paths_no_predictions() -> None:
    assert list(fake(("red", "green")).predict([])) == []


def test_predictions_are_streamed(paths: dict[str, str]) -> None:
    taken: list[str] = []

    def stream() -> Iterator[str]:
        for _ in range(1000):
            taken.append("x")
            yield paths["red"]

    answers = fake(("red", "green", "blue")).predict(stream(), batch_size=2, workers=0)
    next(answers)
    assert len(taken) < 20
    answers.close()  # type: ignore[attr-defined]


def test_probabilities_can_be_had_of_network_inputs_without_any_file(paths: dict[str, str]) -> None:
    """What a server would put together into batches of its own; `predict` gives the same."""
    model = fake(("red", "green", "blue"))
    frames = np.stack([read(paths[name], model.card.preprocess) for name in ("blue", "olive")])
    probabilities = model.answers(frames)
    assert probabilities.dtype == np.float64
    assert probabilities.shape == (2, 3)
    rule = Rule(model.card.classes, top_k=3)
    given = [rule.prediction(paths[name], row) for name, row in zip(("blue", "olive"), probabilities, strict=True)]
    assert given == list(model.predict([paths["blue"], paths["olive"]], top_k=3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error_of_their_own(paths: dict[str, str], value: float) -> None:
    model = fake(("red", "green"))
    broken = Model(model.card, lambda frames: np.full((len(frames), 2), value, dtype=np.float32), model.holdout)
    with pytest.raises(NonFiniteError, match="the network gives NaN or infinite logits; use an earlier checkpoint"):
        list(broken.predict(paths["red"]))


def test_several_threads_predict_at_once_and_get_what_one_gets(paths: dict[str, str]) -> None:
    model = fake(("red", "green", "blue"))
    names = list(paths.values()) * 5
    serial = list(model.predict(names, batch_size=3, workers=2))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: list(model.predict(names, batch_size=3, workers=2)), range(8)))
    assert found == [serial] * 8


def test_top_k_lists_the_best_classes_first(paths: dict[str, str]) -> None:
    model = fake(("red", "green", "blue"))
    answer = one(model, paths["olive"], top_k=2)
    assert answer.top is not None
    assert [score.class_name for score in answer.top] == ["red", "green"], "equal scores keep the classes' order"
    everything = one(model, paths["green"], top_k=99)
    assert everything.top is not None
    assert len(everything.top) == 3
    assert sum(score.confidence for score in everything.top) == pytest.approx(1)
    assert everything.top[0].class_name == everything.class_name == "green"
    assert everything.top[0].confidence == everything.confidence


def test_two_classes_the_threshold_decides_for_the_second(paths: dict[str, str]) -> None:
    model = fake(("red", "green"))
    assert one(model, paths["olive"]).class_name == "red"
    assert one(model, paths["olive"], threshold=0.5).class_name == "green", "from this probability on"
    sure = one(model, paths["red"], threshold=0.001)
    assert sure.class_name == "green"
    assert sure.confidence == pytest.approx(1 / (1 + np.exp(200 / 32)), rel=1e-3)
    assert not sure.below_threshold
    assert one(model, paths["green"], threshold=0.9999).class_name == "red"


def test_either_of_two_classes_can_be_the_positive_one(paths: dict[str, str]) -> None:
    model = fake(("red", "green"))
    assert one(model, paths["olive"], positive="red", threshold=0.5).class_name == "red"
    assert one(model, paths["red"], positive="red", threshold=0.9999).class_name == "green"
    assert one(model, paths["green"], positive="red", threshold=0).class_name == "red"
    assert one(model, paths["green"], positive="red").class_name == "green", "from 0.5 on"
    with pytest.raises(UsageError, match=r"--positive rad: the model has no such class \(did you mean 'red'\?\)"):
        one(model, paths["red"], positive="rad")
    with pytest.raises(UsageError, match=r"--positive is for two classes, and the model has 3; drop --positive"):
        one(fake(("red", "green", "blue")), paths["red"], positive="red")


def test_the_other_scores_leave_out_the_one_of_the_answer(paths: dict[str, str]) -> None:
    def others(model: Model, **options: object) -> list[str]:
        return [score.class_name for score in one(model, paths["olive"], top_k=3, **options).others]

    three = fake(("red", "green", "blue"))
    assert others(three) == others(three, threshold=0.9) == ["green", "blue"]
    assert others(fake(("red", "green")), threshold=0.1) == ["red"], "the likelier one is not the answer"


def test_more_classes_there_is_no_answer_below_the_threshold(paths: dict[str, str]) -> None:
    model = fake(("red", "green", "blue"))
    doubtful = one(model, paths["olive"], threshold=0.9, top_k=3)
    assert doubtful.class_name is None
    assert doubtful.below_threshold
    assert doubtful.error is None
    assert doubtful.confidence == pytest.approx(0.49, abs=0.02)
    assert doubtful.top is not None
    assert len(doubtful.top) == 3
    assert one(model, paths["red"], threshold=0.9).class_name == "red"


def test_an_image_is_a_path_a_pil_image_or_an_array_and_its_answer_is_the_same(paths: dict[str, str]) -> None:
    model = fake(("red", "green", "blue"))
    pixels = np.asarray(Image.open(paths["olive"]))
    with Image.open(paths["olive"]) as opened:
        several: list[Any] = [paths["olive"], Path(paths["olive"]), opened, Image.fromarray(pixels), pixels]
        answers = list(model.predict(several))
    assert [answer.path for answer in answers] == [paths["olive"]] * 3 + ["image 3", "image 4"]
    assert len({(answer.class_name, answer.confidence) for answer in answers}) == 1


def test_one_image_is_no_list_of_images(paths: dict[str, str]) -> None:
    """A path alone was once taken for a list of letters."""
    model = fake(("red", "green", "blue"))
    pixels = np.asarray(Image.open(paths["blue"]))
    for image in (paths["blue"], Path(paths["blue"]), Image.fromarray(pixels), pixels, pixels[None]):
        (answer,) = model.predict(image)
        assert answer.class_name == "blue"
    (grey,) = model.predict(pixels[:, :, 2])
    assert grey.confidence == pytest.approx(1 / 3), "every channel has the grey level"


def test_an_image_of_pil_is_turned_upright_and_laid_on_white_as_its_file_is(tmp_path: Path) -> None:
    halves = np.zeros((8, 8, 3), dtype=np.uint8)
    halves[:4, :, 0] = halves[4:, :, 1] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(halves).save(tmp_path / "turned.png", exif=exif)
    clear = Image.fromarray(halves).convert("RGBA")
    clear.putalpha(100)
    clear.save(tmp_path / "clear.png")
    for name in ("turned.png", "clear.png"):
        with Image.open(tmp_path / name) as image:
            by_path, by_image = fake(("red", "green", "blue")).predict([tmp_path / name, image], top_k=3)
        assert by_path.top == by_image.top


def test_an_image_of_pil_is_decoded_as_its_file_is_or_refused(tmp_path: Path) -> None:
    """Once PIL has read 16 bits, nobody can tell their range any more."""
    ramp = np.outer(np.ones(8), np.linspace(0, 65535, 8)).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    with Image.open(tmp_path / "ramp.png") as image:
        assert isinstance(image, ImageFile.ImageFile)
        by_path, by_image = fake(("red", "green", "blue")).predict([tmp_path / "ramp.png", image])
        assert by_path.top == by_image.top
        assert image.filename == str(tmp_path / "ramp.png")
        (again,) = fake(("red", "green", "blue")).predict(image)
    Image.new("L", (8, 8), 3).save(tmp_path / "keyed.png", transparency=3)
    with Image.open(tmp_path / "keyed.png") as image:
        image.load()
        (keyed,) = fake(("red", "green", "blue")).predict(image)
    assert "one transparent colour, already read; convert it to RGBA" in str(keyed.error)
    assert str(again.error).endswith("ramp.png: a PIL image of mode I;16; give one of 8 bits, such as mode RGB")


def test_what_is_no_rgb_picture_of_8_bits_fails_alone(paths: dict[str, str]) -> None:
    floats = np.zeros((8, 8, 3), dtype=np.float32)
    channels_first, empty = np.zeros((3, 8, 8), dtype=np.uint8), np.zeros((0, 8, 3), dtype=np.uint8)
    answers = list(fake(("red", "green")).predict([floats, paths["red"], channels_first, empty]))
    assert answers[0].error == (
        "image 0: is float32 [8, 8, 3]; give uint8 [height, width, 3] in RGB, or [height, width] in grey"
    )
    assert answers[1].class_name == "red"
    assert "uint8 [3, 8, 8]" in str(answers[2].error)
    assert "uint8 [0, 8, 3]" in str(answers[3].error)


def test_what_is_no_image_at_all_is_refused() -> None:
    for images in (1, [1], [None]):
        with pytest.raises(UsageError, match=r"image 0 is (int|NoneType): give a path"):
            list(fake(("red", "green")).predict(images))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"top_k": 0}, "--top-k 0: must be 1 or more"),
        ({"top_k": "2"}, "--top-k 2: needs a whole number"),
        ({"batch_size": 0}, "--batch-size 0: must be 1 or more"),
        ({"workers": -1}, "--workers -1: must be 0 or more"),
        ({"threshold": 50}, "--threshold 50: must be 0 to 1"),
    ],
)
def test_options_out_of_bounds_are_refused_at_once(option: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        fake(("red", "green")).predict([], **option)


def test_loading_a_missing_checkpoint_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--ckpt .*none\.pt: no such file"):
        load(str(tmp_path / "none.pt"))


def test_the_back_end_is_chosen_by_the_files_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = fake(("red", "green"))
    asked: list[tuple[str, str, bool, bool]] = []

    def back_end(path: str, device: str, amp: bool, few: bool) -> Model:
        asked.append((path, device, amp, few))
        return wanted

    monkeypatch.setattr(module, "BACKENDS", {"": "other:load", ".onnx": "onnx:load"})
    monkeypatch.setattr(module, "resolve", lambda entry: back_end if entry == "onnx:load" else None)
    path = tmp_path / "model.ONNX"
    path.touch()
    assert load(str(path), device="cpu").card is wanted.card
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    for images in (4, 5):
        assert len(predict([pixels] * images, path)) == images
    assert [options[:-1] for options in asked] == [(str(path), "cpu", False), *[(str(path), "auto", False)] * 2]
    assert [options[-1] for options in asked] == [False, True, False], "whether they are few"
