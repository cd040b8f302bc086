"""What is wrong with a line is said before torch is imported, which takes seconds, where torch need not know it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import zipfile
from dataclasses import dataclass

import pytest

from imgcls.errors import Exit

# Line -> its exit code, and how the error begins.
LINES: dict[str, tuple[Exit, str]] = {
    # what is missing
    "train": (Exit.USAGE, "--data is missing"),
    "inspect-batch": (Exit.USAGE, "--data is missing"),
    "evaluate": (Exit.USAGE, "--data is missing"),
    "predict": (Exit.USAGE, "Missing argument 'IMAGE...'"),
    "sample-data": (Exit.USAGE, "Missing argument 'DIR'"),
    "train --resume": (Exit.USAGE, "--resume needs --out"),
    # data
    "train --data nowhere": (Exit.USAGE, "--data nowhere: no such folder or data set"),
    "train --data text": (Exit.USAGE, "--data text: is a file"),
    "train --data empty": (Exit.DATA, "empty: no class folders"),
    "inspect-batch --data nowhere": (Exit.USAGE, "--data nowhere: no such folder or data set"),
    "inspect-batch --data empty": (Exit.DATA, "empty: no class folders"),
    "evaluate --data nowhere": (Exit.USAGE, "--data nowhere: no such folder or data set"),
    "export --data nowhere": (Exit.USAGE, "--data nowhere: no such folder or data set"),
    "predict empty": (Exit.USAGE, "empty: no images found"),
    "sample-data dataset": (Exit.USAGE, "dataset: is not empty"),
    # checkpoints, weights, settings
    "evaluate --data dataset --ckpt none.pt": (Exit.USAGE, "--ckpt none.pt: no such file"),
    "evaluate --data dataset --ckpt dataset": (Exit.USAGE, "--ckpt dataset: is a folder"),
    "evaluate --data dataset --ckpt page.pt": (Exit.CHECKPOINT, "page.pt: is a web page"),
    "evaluate --data dataset --ckpt a.pt2": (Exit.CHECKPOINT, "a.pt2: is an exported pt2 file"),
    "predict cat.png --ckpt none.onnx": (Exit.USAGE, "--ckpt none.onnx: no such file"),
    "predict cat.png --ckpt page.pt": (Exit.CHECKPOINT, "page.pt: is a web page"),
    "export --ckpt none.pt": (Exit.USAGE, "--ckpt none.pt: no such file"),
    "export --ckpt page.pt": (Exit.CHECKPOINT, "page.pt: is a web page"),
    "info none.pt": (Exit.USAGE, "none.pt: no such file"),
    "info page.pt": (Exit.CHECKPOINT, "page.pt: is a web page"),
    "train --data dataset --weights none.pth": (Exit.USAGE, "--weights none.pth: no such file"),
    "train --data dataset --weights page.pt": (Exit.CHECKPOINT, "page.pt: is a web page"),
    "inspect-batch --data dataset --weights none.pth": (Exit.USAGE, "--weights none.pth: no such file"),
    "train --data dataset --config none.json": (Exit.USAGE, "--config none.json: no such file"),
    "train --data dataset --config text": (Exit.USAGE, "--config text: text, and settings are JSON"),
    # words, numbers, devices
    "train --data dataset --arch resnet81": (Exit.USAGE, "--arch resnet81: not known"),
    "train --data dataset --epochs 0": (Exit.USAGE, "--epochs 0: must be 1 or more"),
    "train --data dataset --device gpu": (Exit.USAGE, "--device gpu: not known (did you mean 'cuda'?)"),
    "train --data dataset --amp --device cpu": (Exit.USAGE, "--amp needs CUDA, not --device cpu"),
    "inspect-batch --data dataset --split test": (Exit.USAGE, "--split test: not known"),
    "evaluate --data dataset --split valid": (Exit.USAGE, "--split valid: not known (did you mean 'val'?)"),
    "evaluate --data dataset --device cuda:x": (Exit.USAGE, "--device cuda:x: not known"),
    "evaluate --data dataset --amp --device mps": (Exit.USAGE, "--amp needs CUDA, not --device mps"),
    "evaluate --data dataset --threshold 2": (Exit.USAGE, "--threshold 2.0: must be 0 to 1"),
    "predict cat.png --device tpu": (Exit.USAGE, "--device tpu: not known"),
    "predict cat.png --amp --device cpu": (Exit.USAGE, "--amp needs CUDA, not --device cpu"),
    "predict cat.png --format xml": (Exit.USAGE, "--format xml: not known"),
    "predict cat.png --top-k 0": (Exit.USAGE, "--top-k 0: must be 1 or more"),
    "export --format coreml": (Exit.USAGE, "--format coreml: not known"),
    "export --input float16": (Exit.USAGE, "--input float16: not known"),
    "sample-data new --seed -1": (Exit.USAGE, "--seed -1: must be 0 or more"),
    # what will be written
    "train --data dataset --out text": (Exit.WRITE, "--out text: text is a file; name a folder"),
    "train --data dataset --out dataset/run": (Exit.USAGE, "--out dataset/run: is inside --data dataset"),
    "train --data dataset --out run": (Exit.USAGE, "--out run: holds a run"),
    "train --resume --out empty": (Exit.USAGE, "--out empty: holds no run"),
    "train --data dataset --json best.pt": (Exit.USAGE, "--json best.pt: .pt is no name for a JSON file"),
    "train --data dataset --json none/a.json": (Exit.WRITE, "none/a.json: cannot write"),
    "inspect-batch --data dataset --output none/a.png": (Exit.WRITE, "none/a.png: cannot write"),
    "inspect-batch --data dataset --output a.gif": (Exit.USAGE, "--output a.gif: .gif is no name for a picture"),
    "inspect-batch --data dataset --json dataset/a": (Exit.USAGE, "--json dataset/a: is inside --data dataset"),
    "evaluate --data dataset --out text": (Exit.WRITE, "--out text: text is a file; name a folder"),
    "evaluate --data dataset --out dataset/a": (Exit.USAGE, "--out dataset/a: is inside --data dataset"),
    "evaluate --data dataset --predictions a.json": (Exit.USAGE, "--predictions a.json: .json is no name for a CSV"),
    "evaluate --data dataset --predictions empty": (Exit.WRITE, "empty: cannot write: is a directory"),
    "evaluate --data dataset --json best.pt": (Exit.USAGE, "--json best.pt: is best.pt itself"),
    "export --output best.pt": (Exit.USAGE, "--output best.pt: the name of a checkpoint"),
    "export --output none/a.onnx": (Exit.WRITE, "none/a.onnx: cannot write"),
    "export --output a.png": (Exit.USAGE, "--output a.png: .png is no name for an onnx file"),
    "export --json best.onnx": (Exit.USAGE, "--json best.onnx: is best.onnx itself"),
    "info --json best.pt": (Exit.USAGE, "--json best.pt: is best.pt itself"),
}

PROGRAM = """
import contextlib, io, json, sys
from imgcls.cli.app import app

for line in json.loads(sys.argv[1]):
    said, code = io.StringIO(), None
    with contextlib.redirect_stderr(said):
        try:
            app(line, prog_name="imgcls")
        except SystemExit as end:
            code = int(end.code)
    print(json.dumps([code, said.getvalue(), "torch" in sys.modules]), flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """What became of a line."""

    code: int
    said: str
    imported_torch: bool


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The answers to all lines, given by one process in a folder with a data set and files of every kind."""
    folder = tmp_path_factory.mktemp("early")
    for name in ("dataset/train/ant", "dataset/train/bee", "empty", "run"):
        (folder / name).mkdir(parents=True)
    for name in ("dataset/train/ant/0.png", "dataset/train/bee/0.png", "cat.png", "run/last.pt"):
        (folder / name).touch()
    (folder / "text").write_text("a text")
    (folder / "page.pt").write_text("<html>not found</html>")
    (folder / "a.pt2").write_text("exported")
    with zipfile.ZipFile(folder / "best.pt", "w") as archive:  # as torch.save begins
        archive.writestr("best/data.pkl", b"")
    before = sorted(folder.rglob("*"))
    command = [sys.executable, "-c", PROGRAM, json.dumps([shlex.split(line) for line in LINES])]
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=True)
    assert sorted(folder.rglob("*")) == before, "nothing was written"
    return {line: Answer(*json.loads(text)) for line, text in zip(LINES, done.stdout.splitlines(), strict=True)}


@pytest.mark.parametrize("line", LINES)
def test_it_is_said_in_one_line_without_torch(answers: dict[str, Answer], line: str) -> None:
    code, sentence = LINES[line]
    answer = answers[line]
    assert (answer.code, answer.said.count("\n")) == (code, 1), answer.said
    assert answer.said.startswith(f"error: {sentence}")
    assert not answer.imported_torch
