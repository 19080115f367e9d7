"""Which release this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Final

DISTRIBUTION: Final = "collab-server"
"""The name of the distribution; "collab" on PyPI is somebody else's."""


def release() -> str:
    """Return the version of the distribution that is installed; "unknown" where the code lies in a folder alone."""
    try:
        return installed_version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
