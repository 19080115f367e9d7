"""docs/jupyter.md: the settings are read as Jupyter reads them."""

from __future__ import annotations

from pathlib import Path

from jupyter_server_ydoc.app import YDocExtension
from traitlets.config import Config

from collab.contrib.jupyter import CollabYStore
from tests.support.snippets import snippet


def test_the_settings_choose_the_store_and_its_options(tmp_path: Path) -> None:
    config = Config()
    for text in (snippet("docs/jupyter.md", "Jupyter", "python"), snippet("docs/jupyter.md", "Options", "python")):
        exec(compile(text, "a snippet", "exec"), {"c": config})
    assert YDocExtension(config=config).ystore_class is CollabYStore
    store = CollabYStore(path="x", config=config)
    assert (store.db_path, store.history_days) == ("/var/lib/jupyter/collab.db", 7)
    assert store.compact_rows == 500 and CollabYStore(path="x").db_path == ".jupyter_collab.db"


def test_the_extra_brings_jupyter() -> None:
    extras = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert snippet("docs/jupyter.md", "Jupyter", "sh") == "pip install 'collab-server[jupyter]'\n"
    assert 'jupyter = ["jupyter-collaboration>=5,<6"]' in extras
