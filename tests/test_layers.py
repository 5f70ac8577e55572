"""The house rules, read off the source: who may import whom, and how long a thing may be."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "kfusion").rglob("*.py"), *(ROOT / "tuning").rglob("*.py")])
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 60

NOUNS, VERBS = 1, 6
# The room of a module is the first name below `kfusion`. A folder that is not named here is a noun, a file a verb.
LEVELS = {
    **dict.fromkeys(("spec", "rules", "contents", "config", "config_file", "recipes", "system"), 0),
    **dict.fromkeys(("data", "model", "training", "analysis", "runtime", "parameters"), NOUNS),
    **dict.fromkeys(("run", "serving", "asking"), 2),
    **dict.fromkeys(("predictor", "material", "temperature"), 3),
    **dict.fromkeys(("outcome", "finished", "exporting"), 4),
    **dict.fromkeys(("trainer", "evaluation", "reporting", "prediction"), 5),
}


def level(room: str) -> int:
    return LEVELS.get(room, NOUNS if (ROOT / "kfusion" / room).is_dir() else VERBS)


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
    return room == other or level(other) < level(room) or level(room) == level(other) == 0


def broken_laws(path: Path) -> list[str]:
    """What the module at `path` imports against the law, one line each."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    names = list(imported(ast.parse(path.read_text("utf-8")), parts[:-1]))
    if parts[0] == "tuning":
        return []
    if parts[1] == "__init__":  # Whoever imports kfusion waits for nothing but the standard library.
        names = imported_at_once(path)
        return [f"kfusion/__init__.py imports {'.'.join(n)}" for n in names if n[0] not in sys.stdlib_module_names]
    wrong = [name for name in names if name[0] == "tuning"]
    inner = [name for name in names if name[0] == "kfusion" and len(name) > 1 and is_module(*name[:2])]
    wrong += [name for name in inner if not may_import(parts[1], name[1])]
    return [f"{'/'.join(parts)}.py imports {'.'.join(name)}" for name in wrong]


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
        ("analysis", "run", False),
        ("config", "spec", True),
        ("spec", "data", False),
        ("run", "training", True),
        ("exporting", "run", True),
        ("predictor", "exporting", False),
        ("serving", "exporting", False),
        ("serving", "runtime", True),
        ("train", "evaluate", False),
        ("exporting", "export", False),
    ],
)
def test_the_law_itself_reads_as_in_the_house_plan(room, other, allowed):
    assert may_import(room, other) == allowed


def test_every_way_to_write_an_import_is_seen():
    text = (
        "import kfusion.data.pairs as p\nfrom kfusion import model\nfrom kfusion.run import Run\nfrom ..spec import S\n"
    )
    found = list(imported(ast.parse(text), ("kfusion", "data")))
    assert [name[1] for name in found] == ["data", "model", "run", "spec"]


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
