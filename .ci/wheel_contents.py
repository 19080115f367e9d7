"""Put into the wheel what lives outside the package: the migrations and the built page.

Strategy: a build hook of hatchling rather than a static ``force-include``, because an editable
install has to work in a fresh clone, where nothing is built yet, while a wheel without its page
or its migrations has to fail at build time and not at its first user.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CONTENTS = {
    "migrations": ("env.py", "collab/_migrations", "the checkout is not complete"),
    "web_demo/dist": ("index.html", "collab/_web", "build the page first: make web"),
}


class WheelContents(BuildHookInterface):  # type: ignore[type-arg, misc]
    """Add the two directories to a wheel; refuse to build a wheel or an sdist that lacks one of them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Check that the directories are there and place them; do nothing for an editable install."""
        if version == "editable":
            return
        for source, (proof, target, remedy) in CONTENTS.items():
            directory = Path(self.root) / source
            if not (directory / proof).is_file():
                raise RuntimeError(f"{source}/{proof} is missing, so this {self.target_name} would not work; {remedy}")
            if self.target_name == "wheel":
                for path in sorted(directory.rglob("*")):
                    if path.is_file() and path.suffix != ".pyc":
                        build_data["force_include"][str(path)] = f"{target}/{path.relative_to(directory).as_posix()}"
