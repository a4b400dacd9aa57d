"""The rules that docs/architecture.md draws: imports run one way, files and functions stay small, torch comes late."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import deixis

SOURCE = Path(deixis.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

MAX_FILE_LINES = 600
MAX_BODY_LINES = 40

MAY_IMPORT = {
    "config": set(),
    "recipe": {"config"},
    "structures": set(),
    "files": set(),
    "progress": set(),
    "verdict": set(),
    "geometry": {"config", "structures"},
    "language": {"config", "structures", "geometry"},
    "data": {"config", "structures", "files", "progress", "geometry", "language"},
    "models": {"config", "recipe", "structures", "files", "geometry", "language"},
    "drawing": {"config", "structures", "geometry", "progress", "verdict"},
    "charts": set(),
    "text_tables": set(),
}
GROUND_FLOOR = set(MAY_IMPORT)
MAY_IMPORT["hub"] = GROUND_FLOOR - {"data"}
MAY_IMPORT["grounder"] = MAY_IMPORT["hub"] | {"hub"}
MAY_IMPORT["evaluate"] = MAY_IMPORT["deploy"] = GROUND_FLOOR | {"hub", "grounder"}
MAY_IMPORT["train"] = MAY_IMPORT["evaluate"] | {"evaluate"}
MAY_IMPORT["tools"] = GROUND_FLOOR
MAY_IMPORT["bench"] = MAY_IMPORT["evaluate"]
MAY_IMPORT["papers"] = MAY_IMPORT["train"] | {"train", "bench"}
MAY_IMPORT["cli"] = MAY_IMPORT["papers"] | {"deploy", "papers", "tools", "__init__"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = GROUND_FLOOR | {"hub", "grounder"}


BUDGET = {
    "bench": 1200, "cli": 2300, "data": 9500, "evaluate": 4100, "geometry": 850, "language": 900, "models": 6000,
    "papers": 1700, "tools": 2300, "train": 3050,
}  # fmt: skip
"""Lines a room may have; what a change adds to a full one, it takes away elsewhere."""


def part_of(path: Path) -> str:
    """``geometry`` for geometry/boxes.py, ``hub`` for hub.py."""
    return part_named(list(path.relative_to(SOURCE).with_suffix("").parts))


def part_named(module: list[str]) -> str:
    """The first name; a family's config and recipes stand on the ground floor beside config.py and recipe.py."""
    if module[0] == "models" and {"config", "recipes"} & set(module):
        return "config" if "config" in module else "recipe"
    return module[0]


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imported_parts(path: Path) -> Iterator[str]:
    """The parts of deixis that a file imports, inside functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} line {node.lineno}: imports are absolute"
            names = [f"{node.module}.{one.name}" for one in node.names]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "deixis":
                part = part_named(rest.split("."))
                yield part if part in MAY_IMPORT else "__init__"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_when_followed_then_they_run_one_way(path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"say in this test and in docs/architecture.md where {part!r} stands"
    wrong = set(imported_parts(path)) - MAY_IMPORT[part] - {part}
    assert not wrong, f"{name_of(path)} imports {sorted(wrong)}, which stand above it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_when_counted_then_it_and_its_functions_are_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            body = node.body[1:] if has_docstring else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= MAX_BODY_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("room", sorted(BUDGET))
def test_room_when_counted_then_within_its_budget(room):
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES if part_of(path) == room)
    assert lines <= BUDGET[room]


def test_file_names_when_read_then_none_is_a_place_for_anything():
    assert not {path.stem for path in FILES} & {"utils", "util", "helpers", "helper", "misc", "common"}


def test_import_deixis_when_done_then_torch_and_pillow_are_not_loaded():
    code = "import sys, deixis; dir(deixis); assert not {'torch', 'numpy', 'PIL', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_ground_floor_when_imported_then_torch_is_not_loaded():
    without_torch = (
        "config", "recipe", "structures", "files", "progress", "verdict", "geometry", "language", "drawing", "charts",
        "text_tables", "cli", "data", "tools",
    )  # fmt: skip
    modules = [
        ".".join(["deixis", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
        for path in FILES
        if part_of(path) in without_torch
    ]
    code = f"import sys, importlib\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
    code += "assert not {'torch', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_public_names_when_asked_then_each_is_there_and_documented():
    assert deixis.__version__[0].isdigit()
    for name in deixis.__all__:
        value = getattr(deixis, name)
        assert isinstance(value, str) or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = deixis.nothing


def test_list_models_when_asked_then_presets_are_in_it():
    assert "deixis-tiny" in deixis.list_models()


def test_create_model_when_pretrained_and_fields_then_refused():
    with pytest.raises(ValueError, match="context_dim"):
        deixis.create_model("deixis-tiny", pretrained=True, context_dim=32)


def test_draw_when_nothing_given_then_refused():
    with pytest.raises(ValueError, match="at least one grounding"):
        deixis.draw([])
