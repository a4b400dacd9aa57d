"""A hub of the transformers library that is only its cache."""

import shutil

import pytest


@pytest.fixture
def put_on_hub(tmp_path, monkeypatch):
    """Puts a folder into an empty cache of the hub under a name; what is not in it cannot be fetched."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name, folder):
        repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folder, repository / "snapshots" / ("0" * 40))

    return put
