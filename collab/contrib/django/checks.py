"""What ``manage.py check`` says of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error

from collab.contrib.django.conf import read_conf

_NEEDED = ("django.contrib.auth", "django.contrib.sessions")


def check_settings(app_configs: Sequence[AppConfig] | None, **given: Any) -> list[CheckMessage]:
    """Name all that is wrong with ``COLLAB``."""
    found: list[CheckMessage] = [Error(text, id="collab.E001") for text in read_conf()[1]]
    found += [
        Error(f"collab.contrib.django needs {name!r} in INSTALLED_APPS", id="collab.E002")
        for name in _NEEDED
        if not apps.is_installed(name)
    ]
    return found
