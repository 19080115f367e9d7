"""Put into the wheel what lives outside the package: the migrations and the built page.

Strategy: a build hook of hatchling rather than a static ``force-include``, because an editable install has to work in
a fresh clone, where nothing is built yet. A wheel without its migrations would not work, so it is not built. One
without the page works: ``pip install .`` in a clone without Node warns, and the server says at ``/`` what is missing.
``make wheel`` builds the page first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MIGRATIONS = ("migrations", "env.py", "collab/_migrations")
PAGE = ("web_demo/dist", "index.html", "collab/_web")


class WheelContents(BuildHookInterface):  # type: ignore[type-arg, misc]
    """Add the two directories to a wheel; refuse to build a wheel or an sdist without the migrations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Check that the directories are there and place them; do nothing for an editable install."""
        if version == "editable":
            return
        for source, proof, target in (MIGRATIONS, PAGE):
            directory = Path(self.root) / source
            if not (directory / proof).is_file():
                if source == MIGRATIONS[0]:
                    raise RuntimeError(
                        f"{source}/{proof} is missing, so this {self.target_name} would not work; "
                        "the checkout is not complete"
                    )
                self.app.display_warning(
                    f"{source}/{proof} is missing: this {self.target_name} has no page; build it first with: make web"
                )
                continue
            if self.target_name == "wheel":
                for path in sorted(directory.rglob("*")):
                    if path.is_file() and path.suffix != ".pyc":
                        build_data["force_include"][str(path)] = f"{target}/{path.relative_to(directory).as_posix()}"
