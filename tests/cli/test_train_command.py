from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from counting import summarise
from PIL import Image
from typer.testing import Result

from imgcls.distributed import World
from imgcls.errors import Exit, Interrupted

Run = Callable[..., Result]
QUICK = ("--arch", "simple-cnn", "--epochs", 2, "--workers", 0)


def test_the_two_lines_of_the_promise_work_as_typed_and_twice(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(colours, "dataset")
    shutil.copy(colours / "test/red/00.png", "cat.jpg")  # the content decides, not the name
    runs = []
    for _ in range(2):
        result = run("train", "--data", "dataset/", *QUICK)
        assert result.exit_code == 0, result.output
        runs.append(Path("best.pt").resolve())
        result = run("predict", "cat.jpg", "--ckpt", "best.pt")
        assert result.exit_code == 0
        assert result.stdout.split("\t")[0] == "cat.jpg"
        assert "best.pt -> runs/" in result.stderr
    assert runs[0] != runs[1]
    assert runs[0].exists()
    assert not Path("best.pt").readlink().is_absolute()


def test_results_go_to_stdout_and_talk_to_stderr(run: Run, colours: Path, tmp_path: Path) -> None:
    result = run("train", "--data", colours, *QUICK, "--out", tmp_path / "run")
    assert result.stdout.startswith("best epoch ")
    assert "checkpoint: " in result.stdout
    lines = result.stderr.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["device", "network", "images", "pixels", "recipe"]
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert "train 24, val/ 12; 2 classes: blue, red" in result.stderr


def test_a_learning_rate_is_shown_in_three_digits_and_a_val_split_that_is_not_used_is_said(
    run: Run, colours: Path
) -> None:
    line = ("--data", colours, "--val-split", 0.3)
    result = run("train", *line, *QUICK, "--batch-size", 4, "--accumulate", 5, "--dry-run")
    assert "\nlr           0.000168 (adamw: 0.0003 x sqrt(20/64))\n" in result.stderr
    assert "adamw lr 0.000168 cosine" in result.stderr
    note = "note: --val-split 0.3 is not used; the data has validation images of its own\n"
    assert note in result.stderr
    assert note in run("inspect-batch", *line, "--arch", "simple-cnn").stderr


def test_json_on_stdout_is_alone_there(run: Run, colours: Path, tmp_path: Path) -> None:
    result = run("train", "--data", colours, *QUICK, "--out", tmp_path / "run", "--json", "-")
    summary = json.loads(result.stdout)
    assert summary["best"] == str(tmp_path / "run/best.pt")
    assert summary["classes"] == ["blue", "red"]
    assert summary["metrics"]["images"] == 12
    assert "best epoch" in result.stderr


def test_the_header_says_where_validation_comes_from(run: Run, colours: Path, tmp_path: Path) -> None:
    options = ("--arch", "simple-cnn", "--dry-run", "--workers", 0)
    assert f"{colours}: train 24, val/ 12; 2 classes" in run("train", "--data", colours, *options).stderr
    line = f"{colours / 'train'}: train 20, 4 held out of train; 2 classes"
    assert line in run("train", "--data", colours / "train", *options).stderr
    assert (
        f"{colours / 'train'}: train 24; 2"
        in run("train", "--data", colours / "train", "--val-split", 0, *options).stderr
    )


def test_the_files_of_a_run(run: Run, colours: Path, tmp_path: Path) -> None:
    run("train", "--data", colours, *QUICK, "--out", tmp_path / "run", "--json", tmp_path / "summary.json")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"best.pt", "last.pt", "config.json", "metrics.jsonl", "curves.png", "run.lock"}
    assert json.loads((tmp_path / "summary.json").read_text())["ended"] == "all epochs"
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    stable = "epoch step train_loss train_acc val_loss val_acc lr images_per_second data_wait seconds"
    assert set(stable.split()) <= rows[0].keys()
    with Image.open(tmp_path / "run/curves.png") as curves:
        assert curves.size[0] > 600


def test_a_config_file_is_read_and_typed_options_win(run: Run, colours: Path, tmp_path: Path) -> None:
    run("train", "--data", colours, *QUICK, "--lr", 0.02, "--out", tmp_path / "first")
    result = run("train", "--config", tmp_path / "first/config.json", "--epochs", 1, "--out", tmp_path / "second")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "second/config.json").read_text())["config"]
    assert (config["lr"], config["epochs"], config["arch"]) == (0.02, 1, "simple-cnn")
    assert config["size"] == "auto"


def test_weights_that_do_not_exist_are_a_usage_error(run: Run, colours: Path, tmp_path: Path) -> None:
    result = run("train", "--data", colours, "--weights", tmp_path / "none.pt")
    assert result.exit_code == Exit.USAGE
    assert f"--weights {tmp_path / 'none.pt'}: no such file" in result.stderr


def test_what_a_run_did_with_its_folder_is_not_repeated(run: Run, colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for _ in range(2):
        assert run("train", "--data", colours, *QUICK, "--out", out, "--overwrite").exit_code == 0
    before = (out / "last.pt").read_bytes()
    assert run("train", "--resume", "--out", out).exit_code == 0
    assert run("train", "--config", out / "config.json", "--out", tmp_path / "other").exit_code == 0
    assert (out / "last.pt").read_bytes() == before


@pytest.mark.parametrize("option", [("--early-stop", 2), ("--schedule", "plateau"), ("--monitor", "macro-f1")])
def test_what_needs_validation_is_refused_without(run: Run, colours: Path, option: tuple[str, object]) -> None:
    result = run("train", "--data", colours / "train", *QUICK, "--val-split", 0, *option)
    assert result.exit_code == Exit.USAGE
    assert f"{option[0]} " in result.stderr
    assert "needs validation images" in result.stderr


@pytest.mark.parametrize("content", ["no json", "[1, 2]", '{"epohcs": 3}', '{"epochs": "three"}', '{"epochs": [3]}'])
def test_a_wrong_config_file_is_one_line(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    result = run("train", "--data", tmp_path, "--config", tmp_path / "config.json")
    assert result.exit_code == Exit.USAGE
    assert result.stderr.count("\n") == 1


def test_a_misspelt_run_folder_is_not_taken_for_a_new_run(run: Run, tmp_path: Path) -> None:
    result = run("train", "--resume", "--out", tmp_path / "rnu")
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith(f"error: --out {tmp_path / 'rnu'}: holds no run (no config.json); name the run's")


def test_the_same_resume_line_can_be_repeated_until_it_succeeds(run: Run, colours: Path, tmp_path: Path) -> None:
    line = ("train", "--data", colours, *QUICK, "--out", tmp_path / "run", "--resume")
    assert run(*line).exit_code == 0
    again = run(*line)
    assert again.exit_code == 0
    assert "already finished" in again.stdout
    longer = run("train", "--resume", "--out", tmp_path / "run", "--epochs", 3)  # the rest comes from the run
    assert longer.exit_code == 0, longer.output
    assert "resuming at epoch 3 of 3" in longer.stderr


@pytest.fixture
def never_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation finds the same in every epoch."""
    found = summarise(np.array([[4, 2], [3, 3]]), 8.0, 12, ("blue", "red"), "val")
    monkeypatch.setattr("imgcls.engine.train.validate", lambda *arguments, **options: found)


@pytest.mark.usefixtures("never_better")
def test_an_early_stop_is_said_with_what_goes_on(run: Run, colours: Path, tmp_path: Path) -> None:
    """A larger --epochs alone does not."""
    line = ("train", "--data", colours, *QUICK, "--out", tmp_path / "run", "--resume", "--early-stop", 2)
    first = run(*line, "--epochs", 6, "--json", tmp_path / "summary.json")
    assert first.stdout.startswith(
        "stopped early after epoch 3 of 6: no better val-acc for 2 epochs (--early-stop 2)\n"
    )
    assert json.loads((tmp_path / "summary.json").read_text())["stopped_early"] is True
    again = run(*line, "--epochs", 40)
    assert (again.exit_code, again.stdout.splitlines()[0]) == (
        0,
        f"{tmp_path / 'run'}: this run is already finished; stopped early after epoch 3 of 40: "
        "no better val-acc for 2 epochs (--early-stop 2); --early-stop 4, or auto, continues it",
    )
    assert run(*line, "--epochs", 6, "--early-stop", 4).stdout.startswith("stopped early after epoch 5 of 6: ")
    assert "best epoch" in run(*line, "--epochs", 6, "--early-stop", "auto").stdout.splitlines()[0]
    both = run(*line, "--epochs", 6).stdout.splitlines()[0]
    assert both.endswith("already finished; a larger --epochs and --early-stop 7, or auto, continue it")


@pytest.mark.usefixtures("never_better")
def test_the_summary_does_not_call_best_what_is_only_left(run: Run, colours: Path, tmp_path: Path) -> None:
    """The checkpoint of the best epoch was moved away; what is named is there, and its figures are its own."""
    line = ("train", "--data", colours, *QUICK, "--out", tmp_path / "run", "--resume")
    assert run(*line).exit_code == 0
    (tmp_path / "run/best.pt").rename(tmp_path / "mine.pt")
    for _ in range(2):
        again = run(*line, "--json", tmp_path / "summary.json")
        assert again.exit_code == 0, again.output
        assert again.stdout.splitlines()[1].startswith("epoch 2 (the best that is left): validation accuracy ")
        assert Path(json.loads((tmp_path / "summary.json").read_text())["best"]).is_file()


@pytest.mark.parametrize(
    ("processes", "nodes", "program", "is_saved"),
    [
        (1, 1, "imgcls", True),
        (1, 1, "imgcls", False),
        (4, 1, "torchrun --standalone --nproc-per-node 4 -m imgcls", True),
        (8, 2, "torchrun … -m imgcls", True),
    ],
)
def test_a_stopped_run_names_the_line_that_goes_on(
    run: Run,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    nodes: int,
    program: str,
    is_saved: bool,
) -> None:
    """As typed: with the folder in quotes and as many processes."""
    out = tmp_path / "my run's"

    def stopped(config: object, report: Callable[[object], None]) -> None:
        if is_saved:
            out.mkdir()
            (out / "last.pt").touch()
        report.out = str(out)  # type: ignore[attr-defined]
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("imgcls.engine.train.train", stopped)
    monkeypatch.setattr("imgcls.cli.app._die_by", lambda signum: sys.exit(128 + signum))
    world = World(0, processes, 0, processes // nodes)
    monkeypatch.setattr("imgcls.distributed.world_from_environment", lambda: world)
    result = run("train", "--data", colours, "--out", out)
    assert result.exit_code == Exit.SIGTERM
    saved = "go on" if is_saved else "nothing is saved yet; start again"
    assert result.stderr == f"stopped; {saved} with: {program} train --resume --out {shlex.quote(str(out))}\n"


def test_a_run_folder_in_the_way_is_not_touched(run: Run, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/best.pt").write_text("mine")
    result = run("train", "--data", colours, *QUICK, "--out", tmp_path / "run")
    assert result.exit_code == Exit.USAGE
    assert "--overwrite" in result.stderr
    assert (tmp_path / "run/best.pt").read_text() == "mine"


def test_a_run_that_saved_nothing_is_not_in_the_way(run: Run, colours: Path, tmp_path: Path) -> None:
    shutil.copytree(colours, tmp_path / "data")
    image = tmp_path / "data/train/red/00.png"
    image.write_bytes(image.read_bytes()[:200])  # its header is whole: found while training
    line = ("train", "--data", tmp_path / "data", *QUICK, "--out", tmp_path / "run")
    assert run(*line).exit_code == Exit.DATA
    assert json.loads((tmp_path / "run/config.json").read_text())["run"]["status"].startswith("failed: ")
    shutil.copy(colours / "train/red/00.png", image)
    assert run(*line).exit_code == 0


def test_nothing_is_written_into_the_data_folder(run: Run, colours: Path) -> None:
    before = sorted(colours.rglob("*"))
    result = run("train", "--data", colours, *QUICK, "--out", colours / "train" / "run")
    assert result.exit_code == Exit.USAGE
    assert "is inside --data" in result.stderr
    assert sorted(colours.rglob("*")) == before


def test_a_random_frozen_backbone_is_warned_of(run: Run, colours: Path) -> None:
    result = run("train", "--data", colours, *QUICK, "--freeze-epochs", "all", "--dry-run")
    assert "warning: --freeze-epochs without pretrained weights" in result.stderr
    assert "warning: --freeze-epochs" not in run("train", "--data", colours, *QUICK, "--dry-run").stderr


def test_an_output_that_cannot_be_written_is_found_first(run: Run, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file/below"):
        result = run("train", "--data", colours, *QUICK, "--out", out)
        assert result.exit_code == Exit.WRITE
        assert result.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_dry_run_writes_nothing(run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("train", "--data", colours, *QUICK, "--dry-run")
    assert result.exit_code == 0
    assert "dry run" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_file_named_best_pt_is_left_alone(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("best.pt").write_text("mine")
    result = run("train", "--data", colours, *QUICK)
    assert result.exit_code == 0
    assert "left alone" in result.stderr
    assert Path("best.pt").read_text() == "mine"


def test_weights_that_cannot_be_had_are_said_loudly_or_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(url: str) -> None:
        raise ConnectionError("no connection")

    monkeypatch.setattr("imgcls.download.open_url", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 255, (120, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    line = ("train", "--data", "data", "--arch", "squeezenet1_1", "--size", 96, "--epochs", 1, "--workers", 0)
    result = run(*line, "--out", "run", "--json", "summary.json")
    assert result.exit_code == 0, result.output
    assert "warning: TRAINING FROM SCRATCH" in result.stderr
    assert "from scratch!" in next(row for row in result.stderr.splitlines() if row.startswith("epoch 1"))
    assert "warning: trained from scratch" in result.stderr
    assert json.loads(Path("summary.json").read_text())["pretrained"]["used"] is None
    refused = run(*line, "--pretrained", "--out", "other")
    assert refused.exit_code == Exit.CHECKPOINT
    assert refused.stderr.splitlines()[-1].startswith("error: --pretrained: ")
    assert not Path("other").exists()
    quiet = run(*line, "--no-pretrained", "--dry-run")
    assert "SCRATCH" not in quiet.stderr


def broken_data(root: Path, colours: Path) -> dict[str, Path]:
    """Return data folders that cannot be trained on, by what is wrong."""
    kinds = {}
    for kind in ("empty", "no folders", "one class", "one image", "empty class", "unknown class", "case twin", "html"):
        kinds[kind] = root / kind.replace(" ", "-")
        kinds[kind].mkdir()
    image = colours / "train/red/00.png"
    shutil.copy(image, kinds["no folders"])
    for kind, files in {
        "one class": ["red/0.png", "red/1.png"],
        "one image": ["red/0.png"],
        "empty class": ["red/0.png", "red/1.png", "blue/none.txt"],
        "unknown class": ["train/red/0.png", "train/blue/0.png", "val/red/0.png", "val/green/0.png"],
        "case twin": ["train/red/0.png", "train/blue/0.png", "val/Red/0.png"],
    }.items():
        for file in files:
            (kinds[kind] / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, kinds[kind] / file)
    shutil.copytree(colours, kinds["html"], dirs_exist_ok=True)
    (kinds["html"] / "train/red/05.png").write_text("<html>not found</html>")
    return kinds


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("empty", "no class folders"),
        ("no folders", "no class folders"),
        ("one class", "only one class, 'red'"),
        ("one image", "only one class, 'red'"),
        ("empty class", "no images of class 'blue'"),
        ("unknown class", "unknown class 'green'"),
        ("case twin", "class 'Red' is written 'red'"),
        ("html", "05.png: not an image of a supported format"),
    ],
)
def test_data_that_cannot_be_trained_on_is_one_line_and_exit_3(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, sentence: str
) -> None:
    data = broken_data(tmp_path, colours)[kind]
    before = sorted(path for path in data.rglob("*"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    result = run("train", "--data", data, *QUICK)
    assert result.exit_code == Exit.DATA
    assert sentence in result.stderr.splitlines()[-1]
    assert result.stdout == ""
    assert sorted(path for path in data.rglob("*")) == before
    if kind != "html":  # found while training; the others before anything is written
        assert list((tmp_path / "work").iterdir()) == []


def test_the_learning_rate_and_the_first_command_line_are_kept(
    run: Run, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `lr=auto` was, and how the run began, although it was resumed by a shorter line."""
    out = tmp_path / "run"
    first = ("train", "--data", colours, "--arch", "simple-cnn", "--epochs", 1, "--workers", 0, "--out", out)
    resumed = ("train", "--resume", "--out", out, "--epochs", 2)
    for line in (first, resumed):
        monkeypatch.setattr("sys.argv", ["imgcls", *map(str, line)])
        assert run(*line).exit_code == 0
    shown = dict(line.split(maxsplit=1) for line in run("info", out / "last.pt").stdout.splitlines() if line[0] != " ")
    assert "lr=auto" in shown["settings"]
    assert "; lr 0.0001837; " in shown["decided"]
    rows = {line[:15].strip(): line[15:] for line in run("info", out / "last.pt").stdout.splitlines()}
    assert rows["command line"].endswith(f"--arch simple-cnn --epochs 1 --workers 0 --out {out}")
    assert rows["resumed by"] == f"imgcls train --resume --out {out} --epochs 2"
    stored = json.loads((out / "config.json").read_text())["run"]
    assert stored["command_line"] == ["imgcls", *map(str, first)]
    assert stored["resumed_by"] == ["imgcls", *map(str, resumed)]
    before = run("info", out / "best.pt", "--json", "-")
    assert json.loads(before.stdout)["run"]["resolved"]["lr"] == pytest.approx(3e-4 * (24 / 64) ** 0.5), (
        "a batch of all 24 images"
    )


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "best.pt",
            b"PK\x03\x04\0",
            "a checkpoint, not settings; type --config runs/…/config.json, or see its settings",
        ),
        ("weights.onnx", b"\x08", "a checkpoint, not settings; type --config runs/…/config.json, or see its settings"),
        ("curves.png", b"\x89PNG\r\n\0", "a binary file, not settings; type --config runs/…/config.json"),
        ("m.jsonl", b'{"epoch": 1}\n{"epoch": 2}\n', "one JSON value per line, as metrics.jsonl has, not settings; "),
        ("a.yaml", b"arch: resnet18\nepochs: 3\n", 'YAML, and settings are JSON, such as {"arch": "resnet18", '),
        ("notes", b"lr = 3", 'text, and settings are JSON, such as {"arch": "resnet18", "epochs": 5}; type --config '),
        ("report.json", b'{"accuracy": 1}', "JSON without any setting of train; type --config runs/…/config.json"),
        ("folder", None, "is a folder; type --config runs/…/config.json"),
    ],
)
def test_what_is_no_config_file_is_named(
    run: Run, tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    result = run("train", "--data", tmp_path, "--config", tmp_path / name)
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith(f"error: --config {tmp_path / name}: {problem}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["best.pt", "metrics.jsonl", ""])
def test_the_config_file_of_the_run_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/best.pt").write_bytes(b"PK\x03\x04\0")
    (tmp_path / "run/metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    (tmp_path / "run/config.json").write_text("{}")
    result = run("train", "--data", "x", "--config", f"run/{name}")
    assert "type --config run/config.json" in result.stderr


def test_the_summary_may_go_into_the_run_folder_but_not_over_its_files(run: Run, colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    line = ("train", "--data", colours, *QUICK, "--out", out, "--json")
    for name in ("best.pt", "config.json", "metrics.jsonl"):
        result = run(*line, out / name)
        assert result.exit_code == Exit.USAGE
        assert result.stderr.startswith(f"error: --json {out / name}: ")
    assert not out.exists()
    assert run(*line, tmp_path / "none/a.json").exit_code == Exit.WRITE
    assert run(*line, out / "summary.json").exit_code == 0
    assert json.loads((out / "summary.json").read_text())["ended"] == "all epochs"
