"""The application, as Django knows it."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register


class CollabConfig(AppConfig):
    """Documents that people edit together."""

    name = "collab.contrib.django"
    label = "collab"
    verbose_name = "Collaboration"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Add the checks, and hear of people who sign out."""
        from django.contrib.auth.signals import user_logged_out
        from django.core.signals import request_finished

        from collab.contrib.django.checks import check_settings
        from collab.contrib.django.telling import signed_out, tell_signed_out

        register(check_settings, Tags.compatibility)
        user_logged_out.connect(signed_out, dispatch_uid="collab")
        request_finished.connect(tell_signed_out, dispatch_uid="collab")
