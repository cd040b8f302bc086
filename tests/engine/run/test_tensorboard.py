"""TensorBoard files hold the numbers of metrics.jsonl; without the extra there is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from carrying import shows
from small_runs import Killed, kill_in, run, tiny

from imgcls.engine.run.tensorboard import NoWriter
from imgcls.errors import Exit, UsageError

pytest_plugins = ("small_runs",)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return tag -> [(epoch, value), …] of the event files of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    tags = found.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")
@shows("train", "tensorboard")
def test_the_event_file_has_the_numbers(pictures: Path, tmp_path: Path) -> None:
    done = run(tiny(pictures, tensorboard=True, epochs=2, out=str(tmp_path / "run")))
    found = scalars(done.folder)
    tags = {"train_loss": "loss/train", "val_loss": "loss/val", "train_acc": "acc/train", "val_acc": "acc/val"}
    tags |= {name: name for name in ("lr", "macro_f1", "images_per_second", "data_wait", "seconds", "step")}
    assert set(found) == set(tags.values())
    for name, tag in tags.items():
        assert [step for step, _ in found[tag]] == [1, 2]
        assert [value for _, value in found[tag]] == pytest.approx([row[name] for row in done.history], rel=1e-5)


def test_a_number_that_is_not_known_is_left_out(pictures: Path, tmp_path: Path) -> None:
    done = run(tiny(pictures / "train", val_split=0, tensorboard=True, mixup=0.5, limit=4, out=str(tmp_path / "run")))
    assert set(scalars(done.folder)) == {"loss/train", "lr", "images_per_second", "data_wait", "seconds", "step"}


def test_each_epoch_is_there_once_after_a_resume(pictures: Path, tmp_path: Path) -> None:
    """Also the second, which was written, lost with a damaged last.pt, and done again."""
    with pytest.raises(Killed):
        run(tiny(pictures, tensorboard=True, epochs=3, limit=4, out=str(tmp_path)), kill_in(3))
    (tmp_path / "last.pt").write_bytes(b"damaged")
    done = run(tiny(pictures, tensorboard=True, epochs=3, limit=4, out=str(tmp_path), resume=True))
    assert [row["epoch"] for row in done.epochs] == [2, 3]
    assert [step for step, _ in scalars(tmp_path)["loss/train"]] == [1, 2, 3]


def test_nothing_is_written_unless_asked(pictures: Path, tmp_path: Path) -> None:
    done = run(tiny(pictures, limit=4, out=str(tmp_path / "run")))
    assert not (done.folder / "tensorboard").exists()
    writer = NoWriter()
    writer.write({"epoch": 1})
    writer.close()


def test_without_the_extra_there_is_one_line_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        UsageError, match=r"tensorboard is not installed: type pip install 'imgcls\[tensorboard\]'"
    ) as e:
        run(tiny("nowhere", tensorboard=True, out=str(tmp_path / "run")))
    assert e.value.exit_code == Exit.USAGE
    assert not (tmp_path / "run").exists()
