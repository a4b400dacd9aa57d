"""What the README and the other pages say must hold: links, commands, the Python lines."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deixis.cli import app
from deixis.geometry.images import read_image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])


def code_blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_when_it_links_to_a_file_then_the_file_is_there(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_readme_when_read_then_no_number_is_still_to_be_measured():
    assert "TODO" not in README


def test_readme_python_when_run_then_box_mask_and_picture(tmp_path, monkeypatch, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code_blocks("python")[0], names)  # the six lines of the first screen
    found = names["found"]
    height, width, _ = read_image("examples/photos/riders.jpg").shape
    x1, y1, x2, y2 = found.box
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert found.mask.shape == (height, width)
    assert read_image("out.png").shape == (height, width, 3)
    assert str(found.score) in capsys.readouterr().out


def test_readme_shell_line_when_run_then_status_0_and_a_picture(tmp_path, monkeypatch):
    line, *_ = [one for block in code_blocks("sh") for one in block.splitlines() if one.startswith("deixis ")]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.png").is_file()


def test_readme_commands_when_asked_for_help_then_each_answers():
    commands = set(re.findall(r"`deixis ((?:data )?[a-z]+)", README))
    assert {"ground", "evaluate", "models", "train", "data phrases", "data show"} <= commands
    for command in sorted(commands):
        result = CliRunner().invoke(app, [*command.split(), "--help"])
        assert result.exit_code == 0, command
        assert "Usage" in result.output


def test_readme_options_when_named_then_the_commands_know_them():
    for line in re.findall(r"`deixis [^`]*--[^`]*`[^\n]*", README):
        command = re.match(r"`deixis ((?:data )?[a-z]+)", line)
        if command is None:  # `deixis --debug ...`
            continue
        known = CliRunner().invoke(app, [*command.group(1).split(), "--help"]).output
        for option in re.findall(r"--[a-z][a-z-]*", line):
            assert option in known or option == "--help", (command.group(1), option)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_when_read_then_it_names_no_place_on_one_machine(page):
    assert not re.search(r"(^|[\s`(])/(home|root|work|tmp|opt|Users)/", page.read_text(encoding="utf-8"))


def test_photos_when_listed_then_each_has_its_licence_and_attribution():
    folder = ROOT / "examples" / "photos"
    rows = [line for line in (folder / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    listed = {re.findall(r"`([^`]+)`", row)[0]: row for row in rows}
    assert set(listed) == {path.name for path in folder.glob("*.jpg")}
    for row in listed.values():
        assert "CC BY 2.0" in row
        assert "COCO" in row
