"""The README is run and held against the code. `make readme` runs this file to make its tables anew."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from imgcls.cli.app import app
from imgcls.config import BatchConfig
from imgcls.errors import Exit
from imgcls.registry import DATASETS, EXPORTERS
from imgcls.settings import flag, settings

PATH = Path(__file__).parents[1] / "README.md"
README = PATH.read_text(encoding="utf-8")
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("$ ")
]


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def shell_script(name: str) -> str:
    """Return the block of shell that names itself so."""
    (script,) = (block for block in blocks("sh") if block.startswith(f"#!/bin/sh\n# {name} "))
    return script


def generated(readme: str) -> str:
    """Return the README with its tables made anew from the code."""

    def fill(match: re.Match[str]) -> str:
        kind, _, command = match[1].partition(" ")
        rows = {"options": option_rows, "shared": shared_options, "exit": exit_code_rows}[kind](command)
        return f"<!-- generated: {match[1]} -->\n" + "\n".join(rows) + "\n<!-- end -->"

    return re.sub(r"<!-- generated: ([\w -]+) -->\n.*?<!-- end -->", fill, readme, flags=re.S)


SHARED = [flag(item) for item, _ in settings(BatchConfig)]


def option_rows(command: str) -> Iterator[str]:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    yield "| option | |"
    yield "|---|---|"
    parameters: list[Any] = group.commands[command].params
    for parameter in sorted(parameters, key=lambda parameter: parameter.param_type_name):  # arguments first
        if command == "inspect-batch" and {*SHARED} & {*parameter.opts}:
            continue  # listed under train
        names = " / ".join([*parameter.opts, *parameter.secondary_opts])
        option = f"{names} {parameter.metavar or ''}" if names.startswith("-") else str(parameter.metavar)
        shown = "required" if parameter.required else parameter.default if parameter.show_default else None
        text = re.sub(r" \[one of: [^]]*\]", "", parameter.help) + (f" [{shown}]" if shown else "")
        cells = (cell.replace("|", "\\|") for cell in (f"`{option.strip()}`", text))
        yield f"| {' | '.join(cells)} |"


def shared_options(command: str) -> Iterator[str]:
    yield f"`{command}` takes `{' '.join(SHARED)}` as `train` does, and"


def exit_code_rows(codes: str) -> Iterator[str]:
    yield "| code | meaning |"
    yield "|---|---|"
    for code in Exit:
        yield f"| {int(code)} | {code.meaning} |"


def test_the_tables_are_those_of_the_code() -> None:
    assert generated(README) == README, "type: make readme"


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the README's tour, with one epoch of the smallest network in place of five of resnet18."""
    folder = tmp_path_factory.mktemp("tour")
    with contextlib.chdir(folder):
        assert len(COMMANDS) == 9
        for command in COMMANDS:
            shorter = command.replace("--epochs 5", "--epochs 1").replace("resnet18", "simple-cnn")
            result = CliRunner().invoke(app, shlex.split(shorter)[1:])
            assert result.exit_code == 0, (command, result.output)
    return folder


def test_the_tour_leaves_what_it_says(tour: Path) -> None:
    for name in ("best.pt", "best.onnx", "grid.png", "worst-first.csv", "report/confusion.png", "report/examples.png"):
        assert (tour / name).is_file()


def test_the_python_lines_run(tour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tour)
    exec(compile(blocks("python")[0], "README.md", "exec"), {})


@pytest.fixture(scope="module")
def programs(tour: Path) -> Path:
    """A folder with the README's programs, and a network that torchvision has too, in place of the tour's."""
    folder = tour.parent / "programs"
    line = "train --data dataset --arch shufflenet_v2_x0_5 --limit 10 --epochs 1 --workers 0 --batch-size 5 --out"
    with contextlib.chdir(tour):
        assert CliRunner().invoke(app, [*shlex.split(line), str(folder)]).exit_code == 0
    for program in blocks("python"):
        if named := re.match(r"# (\w+\.py)", program):
            assert "import imgcls" not in program
            (folder / named[1]).write_text(program, encoding="utf-8")
    return folder


@pytest.mark.parametrize("format", EXPORTERS)
def test_a_program_without_imgcls_gives_the_same_answer(
    tour: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.chdir(programs)
    assert CliRunner().invoke(app, ["export", "--format", format]).exit_code == 0
    image = str(tour / "dataset/test/star/star-000.png")
    line = [sys.executable, "-W", "ignore", f"{format}_consumer.py", image]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    row = CliRunner().invoke(app, ["predict", image]).stdout.split("\t")
    assert done.stdout.split() == [row[1], row[2].strip()]


@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
def test_the_shell_script_picks_the_best_of_three(tour: Path, tmp_path: Path) -> None:
    """With small networks in place of large ones, and one epoch."""
    script = shell_script("best-of-three.sh")
    for large, small in (
        ("resnet18", "lenet"),
        ("mobilenet_v3_small", "simple-cnn"),
        ("--epochs 5", "--epochs 1 --limit 40"),
    ):
        assert large in script
        script = script.replace(large, small)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    line = ["sh", "-c", script, "best-of-three.sh", str(tour / "dataset")]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^[\d.]+ % of 150 test images$", done.stdout, re.M)
    assert (tmp_path / "best-of-three.onnx").is_file()


@pytest.mark.parametrize(
    ("ends", "calls", "code"),
    [
        *((f"{code}", 1, code) for code in (2, 3, 4, 6, 130)),  # would be the same again
        *((f"{code} {code} {code}", 3, code) for code in (1, 7, 8, 75, 137, 143)),  # may pass, and did not
        ("7 8 0", 3, 0),
        ("7 8 137+ 1 1 0", 6, 0),  # something was saved in the third
        ("1+ 1+ 1+ 1+ 1 1 1", 7, 1),
    ],
)
def test_the_loop_ends(tmp_path: Path, ends: str, calls: int, code: int) -> None:
    """A command that ends with these codes, one after the other; + where something was saved."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last.pt").touch()
    (tmp_path / "ends").write_text("\n".join(ends.split()) + "\n")
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "train").write_text("""#!/bin/sh
echo >> calls
end=$(sed -n "$(wc -l < calls)p" ends)
[ "$end" = "${end%+}" ] || { ln -f "$2/last.pt" "$2/last.prev.pt"; echo > "$2/new"; mv "$2/new" "$2/last.pt"; }
[ "$1" = "two words" ] && exit "${end%+}"
""")
    for name in ("sleep", "train"):
        (tmp_path / name).chmod(0o700)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    line = ["sh", "-c", shell_script("until-done.sh"), "until-done.sh", "run", "train", "two words", "run"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    assert len((tmp_path / "calls").read_text().splitlines()) == calls


def test_every_command_is_mentioned() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"imgcls {command.name or command.callback.__name__.replace('_', '-')}" in README


@pytest.mark.parametrize("names", [DATASETS, EXPORTERS], ids=["data sets", "formats"])
def test_every_name_is_mentioned(names: dict[str, str]) -> None:
    for name in names:
        assert f"`{name}`" in README


def test_the_map_names_every_file_and_no_other() -> None:
    tree = README[README.index("    imgcls/\n") : README.index("    tests/  ")]
    named, folders = set(), list[str]()
    for line in tree.splitlines():
        names = re.split(r"  +", line.strip())[0].split()
        depth = (len(line) - len(line.lstrip()) - 4) // 2
        folders = [*folders[:depth], names[0]]
        named |= {"".join([*folders[:depth], name]) for name in names if name.endswith(".py")}
    root = Path(__file__).parents[1]
    real = {path.relative_to(root).as_posix() for path in (root / "imgcls").rglob("*.py")}
    assert named == {name for name in real if "/__" not in name}


if __name__ == "__main__":
    PATH.write_text(generated(README), encoding="utf-8")
