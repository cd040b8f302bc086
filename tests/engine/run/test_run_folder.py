"""The run folder: what is in it, who may use it, and what is refused before the first step."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from carrying import shows
from small_runs import Run, run, same, tiny

import imgcls
from imgcls import checkpoint, files
from imgcls.engine.run import folder as run_folder
from imgcls.engine.train import train
from imgcls.errors import Exit, ImgclsError, UsageError, WriteError
from imgcls.events import Event, Stepped
from imgcls.paths import RUN_FILES

pytest_plugins = ("small_runs",)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@shows("train", "out")
def test_out_is_where_the_files_go(pictures: Path, elsewhere: Path) -> None:
    done = run(tiny(pictures, out="deep/in/there"))
    assert done.finished.out == str(Path("deep/in/there"))
    assert done.finished.best == str(Path("deep/in/there/best.pt"))
    found = sorted(path.name for path in done.folder.iterdir())
    assert found == ["best.pt", "config.json", "curves.png", "last.pt", "metrics.jsonl", "run.lock"]
    assert os.listdir(elsewhere) == ["deep"], "no ./best.pt beside an --out"
    assert done.finished.linked is None


def test_the_default_folder_is_new_and_best_pt_points_at_its_best(pictures: Path, elsewhere: Path) -> None:
    """Twice within a second: two folders, and the link follows the later run, relatively."""
    runs = [run(tiny(pictures)) for _ in range(2)]
    assert runs[0].folder != runs[1].folder
    for done in runs:
        assert done.folder.parent == Path("runs")
        assert "-simple-cnn" in done.folder.name
        assert done.finished.linked == "best.pt"
    assert os.readlink("best.pt") == str(runs[1].folder / "best.pt")
    assert not os.path.isabs(os.readlink("best.pt"))
    assert checkpoint.load("best.pt").card.epoch == 1
    assert (runs[0].folder / "best.pt").is_file(), "nothing earlier is overwritten"


def test_a_best_pt_of_the_users_own_is_left_alone(pictures: Path, elsewhere: Path) -> None:
    Path("best.pt").write_text("mine")
    assert run(tiny(pictures)).finished.linked is None
    assert Path("best.pt").read_text() == "mine"


def test_a_limited_run_does_not_become_best_pt(pictures: Path, elsewhere: Path) -> None:
    assert run(tiny(pictures, limit=4)).finished.linked is None
    assert not Path("best.pt").exists()


def test_a_run_that_fails_does_not_become_best_pt(pictures: Path, elsewhere: Path) -> None:
    folder = stopped(pictures)
    assert not os.path.lexists("best.pt")
    assert json.loads((folder / "config.json").read_text())["run"]["status"] == "interrupted"
    assert checkpoint.load(folder / "best.pt").card.epoch == 1


SECOND_EPOCH = Stepped(2, "train", 1, 1, None, 1.0)


def interrupt(event: Event) -> None:
    if isinstance(event, Stepped) and event.epoch == 2:
        raise KeyboardInterrupt


def stopped(pictures: Path, **asked: Any) -> Path:
    """Start a run and stop it in its second epoch; return its folder."""
    with pytest.raises(KeyboardInterrupt):
        run(tiny(pictures, epochs=2, **asked), interrupt)
    return next(iter(Path("runs").iterdir()))


def test_best_pt_points_at_a_default_run_that_was_stopped_and_went_on(
    pictures: Path, elsewhere: Path, tmp_path: Path
) -> None:
    """As if it had never been stopped; and not again when there is nothing left to do."""
    folder = stopped(pictures)
    other = run(tiny(pictures))
    assert os.readlink("best.pt") == str(other.folder / "best.pt")
    assert run(tiny(pictures, epochs=2, out=str(folder), resume=True)).finished.linked == "best.pt"
    assert os.readlink("best.pt") == str(folder / "best.pt")
    run(tiny(pictures))
    later = os.readlink("best.pt")
    again = run(tiny(pictures, epochs=2, out=str(folder), resume=True)).finished
    assert (again.reason, again.linked) == ("already finished", None)
    assert os.readlink("best.pt") == later
    longer = run(tiny(pictures, epochs=3, out=str(elsewhere / folder), resume=True)).finished
    assert longer.linked == "best.pt"
    assert os.readlink("best.pt") == str(folder / "best.pt")


def test_best_pt_points_at_no_run_that_was_given_a_folder_or_a_limit(pictures: Path, elsewhere: Path) -> None:
    for asked in ({"limit": 4}, {"out": "runs/mine"}):
        folder = stopped(pictures, **asked)
        config = tiny(pictures, epochs=2, **asked | {"out": str(folder), "resume": True})
        assert run(config).finished.linked is None
        shutil.rmtree("runs")
    assert not os.path.lexists("best.pt")


def test_a_default_run_that_goes_on_elsewhere_leaves_that_best_pt_alone(
    pictures: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But a project that was moved as a whole is the same place."""
    folder = stopped(pictures)
    (tmp_path / "there" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "there")
    config = tiny(pictures, epochs=2, out=str(elsewhere / folder), resume=True)
    assert run(config).finished.linked is None
    assert not os.path.lexists("best.pt")
    assert not os.path.lexists(elsewhere / "best.pt")
    elsewhere.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert run(tiny(pictures, epochs=3, out=str(folder), resume=True)).finished.linked == "best.pt"
    assert os.readlink("best.pt") == str(folder / "best.pt")


def test_a_run_stopped_between_its_last_epoch_and_its_end_is_pointed_at_too(
    pictures: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_folder.RunFolder, "write_metrics", lambda self, history: interrupt(SECOND_EPOCH))
        run(tiny(pictures))
    (folder,) = Path("runs").iterdir()
    done = run(tiny(pictures, out=str(folder), resume=True))
    assert (done.finished.reason, done.finished.linked) == ("already finished", "best.pt")
    assert len(done.history) == 1, "metrics.jsonl is complete"


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tiny(pictures, seed=5, lr=0.01, epochs=2, out=str(tmp_path_factory.mktemp("finished"))))


def test_config_json_says_what_was_asked_decided_and_used(finished: Run) -> None:
    values = json.loads((finished.folder / "config.json").read_text())
    assert set(values) == {"config", "resolved", "run"}
    assert (values["config"]["seed"], values["config"]["lr"], values["config"]["size"]) == (5, 0.01, "auto")
    assert values["resolved"]["size"] == {"value": 16, "reason": "the images' median longer side is 16 px"}
    assert values["resolved"]["lr"] == {"value": 0.01, "reason": "as asked"}
    assert values["resolved"]["device"]["value"].startswith("cpu")
    assert all(choice["reason"] for choice in values["resolved"].values())
    assert values["run"]["status"] == "finished"
    assert values["run"]["command_line"] == sys.argv
    assert values["run"]["process"] == os.getpid()
    assert values["run"]["data_fingerprint"] == finished.finished.card.data_fingerprint
    assert values["run"]["versions"]["imgcls"] == imgcls.__version__
    assert values["run"]["versions"]["torch"] == torch.__version__
    assert values["run"]["versions"]["torchvision"] == torchvision.__version__.partition("+")[0]


def test_metrics_jsonl_has_the_stable_names(finished: Run) -> None:
    assert [row["epoch"] for row in finished.history] == [1, 2]
    names = {"epoch", "step", "train_loss", "train_acc", "val_loss", "val_acc", "lr"}
    assert set(finished.history[0]) >= names | {"images_per_second", "data_wait", "seconds"}
    assert finished.history == finished.epochs


def test_best_pt_is_the_smallest_sufficient_file(finished: Run) -> None:
    best, last = (checkpoint.load(finished.folder / name) for name in ("best.pt", "last.pt"))
    assert best.training == {}
    assert set(last.training) == {"optimizer", "scaler", "raw", "step", "history", "processes", "within"}
    assert best.card.config["seed"] == 5
    assert best.card.metrics["accuracy"] == finished.history[best.card.epoch - 1]["val_acc"]
    assert best.card.metrics["split"] == "val"
    assert best.card.metrics["held_out"] is False


def test_the_spare_is_there_only_while_the_run_goes_on(pictures: Path, tmp_path: Path) -> None:
    spare = tmp_path / "last.prev.pt"
    seen = []
    run(tiny(pictures, epochs=3, out=str(tmp_path)), lambda event: seen.append(spare.exists()))
    assert any(seen)
    assert not spare.exists()


# A full disk ----------------------------------------------------------------------------------------------------------


def fill(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let a folder hold no byte more than when the second epoch's last.pt is about to be saved."""
    limits, save, write_bytes = list[int](), torch.save, Path.write_bytes

    def refuse(size: int) -> None:
        used = sum(path.stat().st_size for path in folder.iterdir())
        if limits and used + size > limits[0]:
            raise OSError(errno.ENOSPC, "No space left on device")

    def save_tensors(values: dict[str, Any], file: Any) -> None:
        if values["epoch"] == 2 and not limits:
            limits.append(sum(path.stat().st_size for path in folder.iterdir()))
        if isinstance(file, io.BufferedWriter):
            refuse(1)
        save(values, file)

    def write(path: Path, content: bytes) -> None:
        refuse(len(content))
        write_bytes(path, content)

    patch.setattr(torch, "save", save_tensors)
    patch.setattr(Path, "write_bytes", write)


def test_a_full_disk_is_told_by_its_file_and_the_status_says_so(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the room that the run has kept is left for config.json; the older checkpoint stays, and goes on."""
    sentence = rf"{tmp_path}/last\.pt: cannot write: no space left on device; free space: it needs [\d,]+ bytes$"
    with monkeypatch.context() as patch:
        fill(tmp_path, patch)
        with pytest.raises(WriteError, match=sentence) as caught:
            run(tiny(pictures, epochs=3, out=str(tmp_path)))
    assert json.loads((tmp_path / "config.json").read_text())["run"]["status"] == f"failed: {caught.value}"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"best.pt", "last.pt", "last.prev.pt", "config.json", "metrics.jsonl", "run.lock"}
    assert checkpoint.load(tmp_path / "last.pt").card.epoch == 1
    assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n"
    done = run(tiny(pictures, epochs=3, out=str(tmp_path), resume=True))
    whole = run(tiny(pictures, epochs=3, out=str(tmp_path / "whole")))
    assert same(done.weights(), whole.weights())


def test_a_status_that_cannot_be_written_hides_no_error(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: Any, **values: Any) -> None:
        raise WriteError("config.json: cannot write")

    def fails(event: Event) -> None:
        if isinstance(event, Stepped):
            monkeypatch.setattr(run_folder.RunFolder, "set_status", refused)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(pictures, out=str(tmp_path)), fails)


@pytest.mark.parametrize("name", ["curves.png", "config.json"])
def test_a_run_whose_end_cannot_be_written_has_failed_and_ends_when_it_can(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from imgcls import plots

    def full(path: Any, *rest: Any) -> None:
        raise files.cannot_write(Path(path), OSError(errno.ENOSPC, "No space left on device"))

    with monkeypatch.context() as patch:
        patch.setattr(plots, "curves", lambda history, best: None)
        patch.setattr(plots, "save", lambda figure, path: full(path) if name == "curves.png" else None)
        if name == "config.json":
            patch.setattr(run_folder.RunFolder, "write_config", lambda self, *given: full(self.path / "config.json"))
        with pytest.raises(WriteError, match=rf"/{name}: cannot write: no space left on device; free space"):
            train(tiny(pictures, out=str(tmp_path)))
    if name == "curves.png":
        assert json.loads((tmp_path / "config.json").read_text())["run"]["status"].startswith("failed: ")
    assert run(tiny(pictures, out=str(tmp_path), resume=True), curves=True).finished.epochs == 1
    assert json.loads((tmp_path / "config.json").read_text())["run"]["status"] == "finished"
    assert (tmp_path / "curves.png").exists()


# Who may use it -------------------------------------------------------------------------------------------------------


def refused(config: object, error: type[ImgclsError], words: str) -> ImgclsError:
    from imgcls.config import TrainConfig

    assert isinstance(config, TrainConfig)
    with pytest.raises(error, match=words) as caught:
        run(config)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_folder_that_holds_a_run_is_refused(pictures: Path, finished: Run) -> None:
    before = (finished.folder / "best.pt").read_bytes()
    words = "holds a run; type --resume to go on, --overwrite to replace it, or another --out"
    assert refused(tiny(pictures, out=str(finished.folder)), UsageError, words).exit_code == Exit.USAGE
    assert (finished.folder / "best.pt").read_bytes() == before


@shows("train", "overwrite")
def test_overwrite_replaces_the_files_of_the_run_and_no_others(pictures: Path, tmp_path: Path) -> None:
    run(tiny(pictures, epochs=2, out=str(tmp_path)))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "old").touch()
    (tmp_path / "last.prev.pt").touch()
    (tmp_path / "run.lock").write_text("1234567890\n")  # of a process that is gone
    done = run(tiny(pictures, epochs=1, seed=1, out=str(tmp_path), overwrite=True))
    assert [row["epoch"] for row in done.history] == [1]
    assert checkpoint.load(tmp_path / "last.pt").card.config["seed"] == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "tensorboard").exists()
    assert not (tmp_path / "last.prev.pt").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {*RUN_FILES, "notes.txt"}


def test_a_folder_of_other_things_is_used(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    run(tiny(pictures, out=str(tmp_path)))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_in_its_place_is_found_before_the_first_step(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert refused(tiny(pictures, out=str(out)), WriteError, "file").exit_code == Exit.WRITE
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root nothing is unwritable, so the system's answer is planted."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    config = tiny(pictures, out=str(tmp_path / "missing" / "run"))
    error = refused(config, WriteError, rf"--out .*: {tmp_path} cannot be written; name another folder")
    assert error.exit_code == Exit.WRITE
    assert not (tmp_path / "missing").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_is_found_before_the_first_step(pictures: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused(tiny(pictures, out=str(tmp_path / "run")), WriteError, "cannot be written")


def test_nothing_is_built_before_the_folder_is_checked(tmp_path: Path) -> None:
    """The data does not exist, but the folder is refused first."""
    (tmp_path / "file").touch()
    refused(tiny("nowhere", out=str(tmp_path / "file")), WriteError, "file")


def test_two_trainings_in_one_folder(pictures: Path, tmp_path: Path) -> None:
    """The second is refused at once, names the process, and disturbs nothing; afterwards the folder is free."""
    folder = tmp_path / "run"
    refusals: list[Exit] = []

    def second(event: Event) -> None:
        if isinstance(event, Stepped) and not refusals:
            with pytest.raises(WriteError, match=f"process {os.getpid()} trains there") as caught:
                run(tiny(pictures, out=str(folder), overwrite=True))
            refusals.append(caught.value.exit_code)

    first = run(tiny(pictures, out=str(folder)), second)
    assert refusals == [Exit.WRITE]
    assert len(first.history) == 1
    assert len(run(tiny(pictures, out=str(folder), overwrite=True)).history) == 1


def test_the_lock_of_another_process_dies_with_it(tmp_path: Path) -> None:
    script = f"""
import fcntl, sys
file = open({str(tmp_path / "run.lock")!r}, "w")
fcntl.flock(file, fcntl.LOCK_EX)
file.write("4711"); file.flush()
print("locked", flush=True)
sys.stdin.read()
"""
    config = tiny("nowhere", out=str(tmp_path))
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(WriteError, match="process 4711 trains there; wait for it, or name another folder"):
            run_folder.create(config)
        other.kill()
    run_folder.create(config).close()


def test_a_folder_is_free_when_its_run_is_over_though_loader_processes_live(tmp_path: Path) -> None:
    """They are forked while the lock is held, and end a little later."""
    config = tiny("nowhere", out=str(tmp_path))
    first = run_folder.create(config)
    loader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    loader.start()
    first.close()
    run_folder.create(config).close()
    loader.kill()
    loader.join()


def test_curves_are_drawn(pictures: Path, tmp_path: Path) -> None:
    done = run(tiny(pictures, out=str(tmp_path / "run")), curves=True)
    assert (done.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
