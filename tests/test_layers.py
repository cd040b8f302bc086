"""The layer arrow, read from the imports: each part may know what lies to its right, never what lies to its left."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "imgcls"

ARROW = (
    {"cli"},
    {"exporters"},
    {"engine"},
    {"inference.torch"},
    {"checkpoint", "data", "models", "device", "distributed", "provenance"},
    {"inference", "plots"},
    {"pixels"},
    {
        *("config", "settings", "schema", "report", "events", "registry", "habits", "errors"),
        *("files", "file_kind", "paths", "download", "machine", "intervals", "signals"),
    },
)
LEAVES = ARROW[-1]
LEVEL = {part: number for number, level in enumerate(ARROW) for part in level}

PATHS = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
ABOVE_ALL = ("imgcls", "imgcls.__main__")
INNER = [name for name in PATHS if name not in ABOVE_ALL]


def part(module: str) -> str:
    """Return "data" for "imgcls.data.folder"; the torch back end is a part of its own."""
    return "inference.torch" if module == "imgcls.inference.torch" else module.split(".")[1]


def nodes(tree: ast.AST, functions: bool) -> Iterator[ast.AST]:
    """Walk a tree without what stands under `if TYPE_CHECKING:`, and without function bodies unless wanted."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from (other, *nodes(other, functions))
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not functions:
            continue
        yield node
        yield from nodes(node, functions)


def imports(module: str, functions: bool = True) -> set[str]:
    """Return the full names of all modules that a module imports; `functions`: those inside functions too."""
    found: set[str] = set()
    for node in nodes(ast.parse(PATHS[module].read_text(encoding="utf-8")), functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} - {"imgcls"}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "imgcls" and node.attr != "__version__":
            found.add("imgcls")  # anyone may `import imgcls` for its version, and for nothing else
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write the full name"
            base = node.module or ""
            for alias in node.names:
                if base == "imgcls" and alias.name == "__version__":
                    continue
                full = f"{base}.{alias.name}"
                found.add(full if full in PATHS else base)
    return found


def test_there_is_something_to_hold() -> None:
    assert len(INNER) > 20
    assert "imgcls.data.augment.recipe" in imports("imgcls.data.files")
    assert "imgcls.registry" in imports("imgcls")
    assert "imgcls.engine.train" not in imports("imgcls"), "only for the type checker"


@pytest.mark.parametrize("module", INNER)
def test_imports_point_one_way(module: str) -> None:
    assert part(module) in LEVEL, f"{module}: give imgcls/{part(module)} a place in the arrow"
    for target in imports(module):
        if target.partition(".")[0] != "imgcls":
            continue
        assert target not in ABOVE_ALL, f"{module} imports {target}, which is above all"
        assert LEVEL[part(module)] <= LEVEL[part(target)], f"{module} imports {target}, which lies to its left"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {target for target in imports(module) if target in PATHS} - {module} for module in INNER}
    while free := [module for module, targets in graph.items() if not targets & graph.keys()]:
        for module in free:
            del graph[module]
    assert not graph, f"in a circle, or importing one: {sorted(graph)}"


@pytest.mark.parametrize("module", [name for name in INNER if part(name) in LEAVES])
def test_the_rightmost_level_needs_the_standard_library_only(module: str) -> None:
    assert {name.partition(".")[0] for name in imports(module)} <= {*sys.stdlib_module_names, "imgcls"}


@pytest.mark.parametrize("module", [name for name in INNER if part(name) in ("pixels", "inference")])
def test_pixels_and_inference_know_no_torch_but_for_its_back_end(module: str) -> None:
    assert {name.partition(".")[0] for name in imports(module)} <= {
        *sys.stdlib_module_names,
        *("imgcls", "PIL", "numpy", "simplejpeg", "onnxruntime"),
    }


@pytest.mark.parametrize("module", [name for name in INNER if part(name) == "cli"])
def test_the_command_line_imports_nothing_heavy_at_module_level(module: str) -> None:
    for target in imports(module, functions=False):
        root = target.partition(".")[0]
        if root == "imgcls":
            assert part(target) in {"cli", *LEAVES}, f"{module} imports {target}: import it in the command's body"
        else:
            assert root == "typer" or root in sys.stdlib_module_names, f"{module} imports {target} at module level"


@pytest.mark.parametrize("module", INNER)
def test_torchvision_is_imported_where_its_networks_are_built_and_its_data_sets_opened(module: str) -> None:
    """Importing it takes longer than importing torch: our own networks and exported files must not wait for it."""
    own, sets = "imgcls.models.torchvision", "imgcls.data.torchvision_sets"
    roots = {target.partition(".")[0] for target in imports(module, functions=module != own)}
    assert "torchvision" not in roots or module == sets
    assert sets not in imports(module), "by its name in the registry, when a data set is opened"


def test_the_entry_points_load_nothing_heavy() -> None:
    program = "import sys, imgcls, imgcls.__main__; print(*sys.modules)"
    if "imgcls.__main__" not in PATHS:
        program = program.replace(", imgcls.__main__", "")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "numpy", "PIL", "matplotlib"} & set(done.stdout.split())


def test_reading_images_loads_no_torch() -> None:
    program = "import sys, imgcls.inference.model, imgcls.inference.pool, imgcls.inference.inputs; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision"} & set(done.stdout.split())
