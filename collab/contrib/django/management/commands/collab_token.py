"""``manage.py collab_token``: a token for trying things out, or for a script."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from collab.contrib.django.conf import get_conf
from collab.contrib.django.tokens import user_token
from collab.contrib.django.views import ask
from collab.errors import CollabError
from collab.protocol.names import check_document_name


class Command(BaseCommand):
    """Print a token by which a user opens a document."""

    help = "Print a token by which a user opens a document, as far as the project's function allows."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the user and the document."""
        parser.add_argument("user", metavar="USER", help="The name by which the user signs in.")
        parser.add_argument("document", metavar="DOCUMENT", help="The name of the document.")
        parser.add_argument("--seconds", type=float, help="How long it is good. [default COLLAB['TOKEN_SECONDS']]")

    def handle(self, *args: Any, **given: Any) -> None:
        """Print it."""
        model = get_user_model()
        try:
            conf = get_conf()
            check_document_name(given["document"])
        except CollabError as error:
            raise CommandError(str(error)) from None
        seconds = given["seconds"]
        if seconds is not None and not 1 <= seconds <= 366 * 86_400:
            raise CommandError("--seconds is 1 to 31622400, a year")
        try:
            user = model._default_manager.get_by_natural_key(given["user"])  # type: ignore[attr-defined]
        except model.DoesNotExist:
            raise CommandError(f"there is no user {given['user']!r}") from None
        access = ask(conf.permission, user, given["document"])
        if access is None:
            raise CommandError(f"{given['user']!r} may not open {given['document']!r}, says the permission function")
        self.stdout.write(user_token(conf, user, given["document"], access.value, seconds))
