"""The programs that check what is deployed: hadolint, docker-compose, kubectl and Traefik, of the extra ``deploy``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.support.needs import demand


def tool(name: str, *, need: str = "image") -> str:
    """Give the path of a program: that of this environment, else one on PATH."""
    demand(need)
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which(name, path=places)
    assert found is not None, f"this test needs {name}; install it with: pip install -e '.[deploy]'"
    return found
