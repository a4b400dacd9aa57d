"""``deixis calibrate``: what it writes is what the next grounding uses."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from deixis.cli import app
from deixis.grounder import calibrated, load
from deixis.train.calibrate import Evidence


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


@pytest.fixture(autouse=True)
def evidence(monkeypatch):
    """Groundings whose second sign alone tells whether the box is right."""
    rng = np.random.default_rng(0)
    signs = rng.normal(0, 1, (300, 5))
    made = [Evidence(tuple(one.tolist()), 0.9, bool(rng.random() < 1 / (1 + np.exp(-3 * one[1])))) for one in signs]
    monkeypatch.setattr("deixis.train.calibrate.gather_evidence", lambda *a, **k: made)


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", *(str(one) for one in arguments)])


def test_calibrate_when_run_then_the_checkpoint_holds_it_and_grounding_uses_it(folder):
    image = np.full((32, 32, 3), 90, np.uint8)
    before = load(folder, precision="float32").ground(image, "left dog")
    result = run(folder, "scenes:val", "--limit", "10")
    assert result.exit_code == 0, result.output
    stored = json.loads((folder / "config.json").read_text())["calibration"]
    assert json.loads(result.stdout) == stored
    assert stored["data"] == ["scenes:val"]
    assert stored["temperature"] > 0
    assert abs(stored["weights"][1]) > 5 * abs(stored["weights"][0])
    after = load(folder, precision="float32").ground(image, "left dog")
    assert after.score == pytest.approx(calibrated(after.evidence, stored, ()))
    assert after.score != before.score
    assert after.found == (after.score >= stored["found_score"] and after.agreement >= stored["found_agreement"])


def test_calibrate_when_weights_are_kept_then_temperature_alone_moves_them(folder):
    result = run(folder, "scenes:val", "--limit", "10", "--keep-weights")
    assert result.exit_code == 0, result.output
    stored = json.loads(result.stdout)
    own = load(folder, precision="float32").model.score_weights
    assert np.array(stored["weights"]) * stored["temperature"] == pytest.approx(np.array(own), abs=1e-3)
    assert stored["bias"] == 0.0
