"""``manage.py collab_pending``: edits that the server does not have yet."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from collab.contrib.django.conf import get_conf
from collab.contrib.django.models import PendingEdit
from collab.contrib.django.outbox import databases, remove_edit, send_pending
from collab.errors import ConfigurationError
from collab.telemetry import escape_controls


class Command(BaseCommand):
    """Show the edits that wait or have failed, and send them."""

    help = "Show the edits of rows that the server does not have yet: those that wait, and those that it has refused."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what is to be done."""
        parser.add_argument("--send", action="store_true", help="Send what waits.")
        parser.add_argument("--retry", type=int, metavar="ID", help="Send one that has failed again.")
        parser.add_argument("--drop", type=int, metavar="ID", help="Throw one away; its text is printed once more.")

    def handle(self, *args: Any, **given: Any) -> None:
        """Do it."""
        try:
            get_conf()
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        for alias in databases():
            edits = PendingEdit.objects.using(alias)
            if given["drop"] is not None and (edit := edits.filter(pk=given["drop"]).first()) is not None:
                self.stdout.write(edit.text)
                remove_edit(edit, alias)
            if given["retry"] is not None:
                edits.filter(pk=given["retry"]).update(failed=False)
            if given["send"] or given["retry"] is not None:
                self.stdout.write(f"{send_pending(alias)} sent")
            for edit in edits.all().iterator():
                state = "failed" if edit.failed else "waits"
                self.stdout.write(
                    f"{edit.pk}\t{state}\t{edit.created_at:%Y-%m-%dT%H:%M:%S%z}\t{edit.kind}\t"
                    f"{escape_controls(edit.document)}\t{escape_controls(edit.error)}"
                )
