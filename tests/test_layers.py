"""The house rules, read off the source: who may import whom, and how long a thing may be."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "kfusion").rglob("*.py"), *(ROOT / "tuning").rglob("*.py")])
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 60

FLOORS = (
    ("validation",),
    ("spec", "io", "environment", "random_streams", "runtime", "config", "recipes"),
    ("modalities", "run_dir", "cli"),
    ("data", "model", "metrics", "transport"),
    ("client", "prepared_data", "inference", "exporting", "plots"),
    ("training", "evaluation", "reporting", "prediction", "serving"),
    (
        "train",
        "evaluate",
        "embed",
        "report",
        "predict",
        "explain",
        "export",
        "serve",
        "classifier",
        "__main__",
        "__init__",
        "tuning",
    ),
)
"""Who stands on whom: a room imports lower floors and itself. A room is a file or folder in kfusion, and tuning."""
LISTED = {
    ("recipes", "config"),
    ("recipes", "spec"),
    ("cli", "run_dir"),
    ("exporting", "prepared_data"),
    ("__init__", "classifier"),
    ("explain", "classifier"),
}
"""Imports between two rooms of one floor."""
NEVER = {(room, "exporting") for room in ("serving", "client", "transport")}
"""What stays out all the same: a server and a client need nothing of what makes a version."""
LEVELS = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def is_module(*names: str) -> bool:
    path = ROOT.joinpath(*names)
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The dotted names that a module of `package` imports, anywhere in it, as tuples."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = (*base, *(node.module or "").split(".")) if node.module else base
            yield from ((*start, alias.name) for alias in node.names)


def imported_at_once(path: Path) -> list[tuple[str, ...]]:
    """What a module of kfusion imports when it is itself imported: not in functions, not for types alone."""
    body = [node for node in ast.parse(path.read_text("utf-8")).body if not isinstance(node, ast.If | ast.FunctionDef)]
    return list(imported(ast.Module(body, []), ("kfusion",)))


def may_import(room: str, other: str) -> bool:
    allowed = LEVELS[other] < LEVELS[room] or (room, other) in LISTED
    return room == other or (allowed and (room, other) not in NEVER)


def room_of(*names: str) -> str:
    return "tuning" if names[0] == "tuning" else names[1] if len(names) > 1 else "__init__"


def inner_imports(path: Path) -> list[tuple[str, ...]]:
    """What a module imports of kfusion and tuning, anywhere in it, as dotted names."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    found = imported(ast.parse(path.read_text("utf-8")), parts[:-1])
    named = [name for name in found if name[0] == "tuning" or (name[0] == "kfusion" and len(name) > 1)]
    return [name for name in named if name[0] == "tuning" or is_module(*name[:2])]


def broken_laws(path: Path) -> list[str]:
    """What the module at `path` imports against the law, one line each."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    wrong = [name for name in inner_imports(path) if not may_import(room_of(*parts), room_of(*name))]
    if parts == ("kfusion", "__init__"):  # Whoever imports kfusion waits for nothing but the standard library.
        wrong += [name for name in imported_at_once(path) if name[0] not in sys.stdlib_module_names]
    return [f"{'/'.join(parts)}.py imports {'.'.join(name)}" for name in wrong]


def module_of(name: tuple[str, ...]) -> str:
    """The file that a dotted name lies in."""
    while not ROOT.joinpath(*name).with_suffix(".py").is_file() and len(name) > 1:
        name = name[:-1]
    return ".".join(name)


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each function's name and its lines, the docstring's aside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


@pytest.mark.parametrize(
    ("room", "other", "allowed"),
    [
        ("data", "spec", True),
        ("data", "model", False),
        ("metrics", "run_dir", True),
        ("spec", "data", False),
        ("run_dir", "training", False),
        ("training", "run_dir", True),
        ("exporting", "prepared_data", True),
        ("prepared_data", "exporting", False),
        ("serving", "exporting", False),
        ("serving", "runtime", True),
        ("serving", "prediction", False),
        ("train", "evaluate", False),
        ("exporting", "export", False),
        ("tuning", "training", True),
        ("training", "tuning", False),
    ],
)
def test_the_law_itself_reads_as_in_the_house_plan(room, other, allowed):
    assert may_import(room, other) == allowed


def test_every_room_stands_on_one_floor():
    rooms = [
        path.stem for path in (ROOT / "kfusion").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    assert sorted([*rooms, "tuning"]) == sorted(LEVELS)


def test_no_files_import_each_other_in_a_circle():
    arrows = {}
    for path in SOURCES:
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        arrows[own] = {module_of(name) for name in inner_imports(path)} - {own}
    assert tuple(TopologicalSorter(arrows).static_order())


def test_every_way_to_write_an_import_is_seen():
    text = "import kfusion.data.dataset as p\nfrom kfusion import model\n"
    text += "from kfusion.run_dir import Run\nfrom ..spec import S\n"
    found = list(imported(ast.parse(text), ("kfusion", "data")))
    assert [name[1] for name in found] == ["data", "model", "run_dir", "spec"]


def test_modules_import_their_own_folder_and_lower_layers_only():
    assert [line for path in SOURCES for line in broken_laws(path)] == []


def test_no_assert_outside_tests():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_no_file_is_longer_than_500_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_60_lines():
    found = [
        f"{path.relative_to(ROOT)}: {name} has {length}"
        for path in SOURCES
        for name, length in functions(ast.parse(path.read_text("utf-8")))
        if length > MAX_FUNCTION_LINES
    ]
    assert found == []


def test_no_room_is_called_utils():
    assert [path for path in SOURCES if path.stem in ("util", "utils")] == []
