"""What docs/papers.md points at is there: files, the names in them, tests, commands and their options, fields."""

import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

import deixis
from deixis.cli import app
from deixis.models.mcn.config import McnConfig
from deixis.models.smcim.config import SmcimConfig
from deixis.recipe import FIELD_NAMES
from deixis.train.recipes import recipe

ROOT = Path(__file__).parent.parent
SOURCE = Path(deixis.__file__).parent
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
LINES = list(enumerate(PAGE.splitlines(), start=1))
SPAN = re.compile(r"`([^`]+)`")


def spans():
    """Number of the line, what stands in the code span, and what stands between it and the one before."""
    for number, line in LINES:
        end = 0
        for found in SPAN.finditer(line):
            yield number, found.group(1), line[end : found.start()] if end else None
            end = found.end()


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def names_in(tree):
    """What is defined or assigned anywhere below a node, attributes of ``self`` too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for one in (one for target in targets for one in ast.walk(target)):
                if isinstance(one, ast.Name | ast.Attribute):
                    found.add(one.id if isinstance(one, ast.Name) else one.attr)
    return found


def is_in(name, tree):
    """Whether ``name`` or ``Class.name`` is defined in a file."""
    holder, _, inner = name.partition(".")
    if not inner:
        return holder in names_in(tree)
    return any(inner in names_in(node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)
               and node.name == holder)  # fmt: skip


def files_and_names():
    """Every source file that is named, and the names that follow it, separated by commas and the like alone."""
    path = None
    for number, span, between in spans():
        if re.fullmatch(r"[\w/]+\.py", span) and not span.startswith(("tests/", "benchmarks/")):
            path = span
            yield number, path, None
        elif path and between is not None and re.fullmatch(r" |, |; | and |: ", between):
            if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)?", span):
                yield number, path, span
        else:
            path = None


def named_tests():
    """Line, file and words of every test that is named."""
    for number, span, _ in spans():
        if span.startswith("tests/"):
            found = re.fullmatch(r'(tests/[\w/]+\.py)(?: -k (?:"([\w ]+)"|(\w+)))?', span)
            assert found, f"line {number}: expected a file with or without -k, got {span!r}"
            yield number, found[1], [word for word in (found[2] or found[3] or "").split(" or ") if word]


def commands():
    """Line and words of every command that begins with ``deixis``, in code spans and blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    shells = [(0, line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for number, text in [*((number, span) for number, span, _ in spans()), *shells]:
        if text.startswith("deixis "):
            yield number, text.split()[1:]


def test_papers_when_it_names_files_and_names_in_them_then_they_are_there():
    found = list(files_and_names())
    missing = [(number, path) for number, path, name in found if not (SOURCE / path).is_file()]
    assert not missing
    missing = [(n, path, name) for n, path, name in found if name and not is_in(name, tree_of(SOURCE / path))]
    assert not missing
    assert len(found) > 150


def test_papers_when_it_names_tests_then_every_word_finds_one():
    found = list(named_tests())
    assert not [(number, path) for number, path, _ in found if not (ROOT / path).is_file()]
    missing = []
    for number, path, words in found:
        tests = [name for name in names_in(tree_of(ROOT / path)) if name.startswith("test_")]
        missing += [(number, path, word) for word in words if not any(word.lower() in name.lower() for name in tests)]
    assert not missing
    assert len(found) > 80


@cache
def help_of(*words):
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, words
    return result.output


def test_papers_when_it_names_commands_then_they_and_their_options_exist():
    known = {*FIELD_NAMES}
    fields_of = {"mcn": {one.name for one in fields(McnConfig)}, "smcim": {one.name for one in fields(SmcimConfig)}}
    seen = 0
    for number, (command, *words) in commands():
        told = help_of(command, words.pop(0)) if command == "data" else help_of(command)
        if command == "train" and words:
            assert recipe(words[0]), number
        if command == "reproduce" and words:
            assert re.search(rf"\b{words[0]}\b", told), (number, words[0])
        for option in (word.removeprefix("--") for word in words if word.startswith("--")):
            name, _, inner = option.partition(".")
            assert f"--{name}" in told or name in known, (number, option)
            assert not inner or inner in fields_of[words[0].partition("-")[0]], (number, option)
        seen += 1
    assert seen > 25


def test_papers_when_a_command_trains_smcim_then_it_names_both_encoders_or_a_checkpoint():
    """Without words nothing starts, and without image weights it is not the paper's model."""
    seen = 0
    for number, (command, *words) in commands():
        trains = command == "train" and bool(words) and words[0].startswith("smcim") and len(words) > 1
        made = command == "reproduce" and bool(words) and re.fullmatch(r"smcim-(table-.|fig-6)", words[0])
        if (trains or made) and not {"--start", "--model", "--show"} & set(words):
            assert {"--image_weights", "--text_weights"} <= set(words), (number, words)
            seen += 1
    assert seen > 6


def section(title):
    """The text from a heading to the next one of its rank."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text):
    return [row.split("|")[1].strip() for row in text.splitlines() if row.startswith("| ")]


@pytest.mark.parametrize(("paper", "config"), [("MCN", McnConfig), ("SMCIM", SmcimConfig)])
def test_papers_when_switches_are_listed_then_every_field_of_the_configuration_and_none_else(paper, config):
    listed = [name for cell in first_cells(section(f"{paper}: every switch")) for name in SPAN.findall(cell)]
    own = {one.name for one in fields(config)} - {"family"}
    assert own <= set(listed)
    others = {name for name in listed if not name.startswith(("mcn-", "smcim-"))} - own
    assert others <= {*FIELD_NAMES}


@pytest.mark.parametrize(
    ("paper", "equations", "tables", "figures"),
    [("MCN", 12, ["1", "2", "3", "4", "5"], 6), ("SMCIM", 11, ["I", "II", "III", "IV", "V"], 9)],
)
def test_papers_when_a_paper_is_gone_through_then_each_equation_table_and_figure_has_a_row(
    paper, equations, tables, figures
):
    numbers = {int(n) for cell in first_cells(section(f"{paper}: equations")) for n in re.findall(r"\d+", cell)}
    assert numbers == set(range(1, equations + 1))
    rows = first_cells(section(f"{paper}: tables and figures"))
    assert {f"Table {table}" for table in tables} <= {row.partition(",")[0] for row in rows}
    drawn = {int(n) for row in rows if row.startswith("Fig.") for n in re.findall(r"\d+", row)}
    assert drawn == set(range(1, figures + 1))
