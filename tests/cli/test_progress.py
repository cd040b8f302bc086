"""What a training run shows: lines that fit a terminal of 80 columns, the same words when piped."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest

from imgcls.cli.console import Console
from imgcls.cli.progress import Progress, epoch_lines
from imgcls.events import EpochEnded, Started, Stepped
from imgcls.schema import Choice, ModelCard, Preprocess, Pretrained

ROW = {
    "epoch": 3,
    "train_loss": 0.83012,
    "train_acc": 0.6934,
    "val_loss": 0.5,
    "val_acc": 1.0,
    "lr": 0.00028,
    "images_per_second": 60.4,
    "data_wait": 0.0123,
}


def ended(epochs: int = 12, best: bool = False, missing: bool = False, **changed: Any) -> EpochEnded:
    return EpochEnded(ROW | changed, epochs, best, missing)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal of 80 columns in the place of standard error."""
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_an_epoch_is_one_line_when_piped() -> None:
    assert epoch_lines(ended(best=True)) == [
        "epoch  3/12  train loss 0.8301 acc  69.3 %  val loss 0.5000 acc 100.0 %  lr  0.00028     60 images/s  "
        "waiting   1.2 %  best"
    ]


@pytest.mark.parametrize("epochs", [5, 12, 300])
@pytest.mark.parametrize("missing", [False, True])
def test_at_80_columns_it_is_two_that_hold_the_same(epochs: int, missing: bool) -> None:
    event = ended(epochs, best=True, missing=missing)
    lines = epoch_lines(event, 80)
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert sorted(" ".join(lines).split()) == sorted(epoch_lines(event)[0].split())
    assert lines[1].index("lr") == lines[0].index("train")
    assert len(epoch_lines(event, 140)) == 1


def test_the_numbers_of_all_epochs_stand_under_each_other() -> None:
    events = [
        ended(),
        ended(epoch=12, best=True, train_acc=1.0, val_acc=0.0, lr=3.2e-7, images_per_second=12345.6, data_wait=0.97),
        ended(train_loss=12.34567, val_loss=123.4567, lr=0.1, images_per_second=3.14, data_wait=1),
        ended(train_loss=1234.567, val_loss=0.0, lr=0.0012),
    ]
    for columns in (80, 200):
        drawn = [epoch_lines(event, columns) for event in events]
        for lines in zip(*drawn, strict=True):
            ends = [[match.end() for match in re.finditer(r"loss +\S+|%|/s", line)] for line in lines]
            assert all(found == ends[0] for found in ends[:3])
    assert "train loss 12.346 acc" in drawn[2][0]
    assert "val loss 123.46 acc" in drawn[2][0]
    assert " 3.1 images/s" in drawn[2][0]


def test_what_was_not_measured_is_left_out() -> None:
    (line,) = epoch_lines(ended(train_acc=None, val_loss=None, val_acc=None))
    assert line == "epoch  3/12  train loss 0.8301  lr  0.00028     60 images/s  waiting   1.2 %"


def started() -> Started:
    card = ModelCard(
        arch="simple-cnn",
        arch_options={},
        classes=tuple(f"class-{number}" for number in range(20)),
        preprocess=Preprocess(size=64, resize=64),
        pretrained=Pretrained(asked="no", used=None, reason=""),
    )
    fields: dict[str, Any] = dict.fromkeys(Started.__dataclass_fields__, "") | {
        "device": Choice("device", "cpu", "as asked"),
        "card": card,
        "parameters": 1234,
        "trainable": 1234,
        "images": {"train": 600},
        "source": "a folder",
        "recipe": "20 epochs, " * 12 + "and so on",
        "choices": (Choice("lr", 0.17500000000000002, "by batch"), Choice("workers", 2, "2 CPUs")),
        "out": "runs/a",
        "first_epoch": 1,
        "epochs": 20,
    }
    return Started(**fields)


def test_the_header_keeps_to_its_column(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    Progress(Console())(started())
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) > 9
    assert all(line[12] == " " and line[13] != " " for line in lines)
    assert "lr           0.175 (by batch)" in lines


def test_a_piped_header_has_a_line_for_each_fact(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(Console())(started())
    lines = capsys.readouterr().err.splitlines()
    assert [line[:13].strip() for line in lines] == [
        *("device", "network", "images", "pixels", "recipe", "lr", "workers", "files"),
    ]


@pytest.mark.parametrize(("phase", "epoch", "loss"), [("train", 12, 0.6889), ("val", 300, None), ("test", 0, None)])
def test_the_bar_has_room_in_80_columns(
    monkeypatch: pytest.MonkeyPatch, phase: str, epoch: int, loss: float | None
) -> None:
    stream = terminal(monkeypatch)
    progress = Progress(Console())
    for batch in (1, 400, 469):
        progress(Stepped(epoch, phase, batch, 469, loss, 1720.0))
    progress.close()
    drawn = [line for line in re.split(r"[\r\n]", stream.getvalue()) if "images/s" in line]
    assert drawn
    for line in drawn:
        assert len(line) <= 80
        bar = line.split("|")[1]
        assert len(bar) >= 10
        assert line.rstrip().endswith("1720 images/s")
