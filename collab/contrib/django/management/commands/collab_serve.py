"""``manage.py collab_serve``: the server, with the settings of the project."""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from collab.contrib.django.access import DjangoAuthenticator
from collab.contrib.django.conf import Conf, get_conf
from collab.contrib.django.hooks import DjangoHooks
from collab.errors import CollabError
from collab.settings import options

# What the command says itself, and what one process cannot do.
_LEFT_OUT = frozenset({"workers", "auth_url"})


class Command(BaseCommand):
    """Serve documents until SIGTERM or SIGINT; the first line of output names the address."""

    help = (
        "Serve documents until SIGTERM or SIGINT. Options come before those of COLLAB in the settings; "
        "environment variables of collab serve are not read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the options of the server."""
        for option in options():
            if option.name in _LEFT_OUT:
                continue
            if option.kind:
                parser.add_argument(option.flag, dest=f"server_{option.name}", metavar=option.kind, help=_help(option))
            else:
                parser.add_argument(
                    option.flag, dest=f"server_{option.name}", action="store_const", const=True, help=_help(option)
                )
                parser.add_argument(
                    f"--no-{option.flag[2:]}",
                    dest=f"server_{option.name}",
                    action="store_const",
                    const=False,
                    help=SUPPRESS,
                )

    def handle(self, *args: Any, **given: Any) -> None:
        """Serve; the exit code is that of ``collab serve``."""
        from collab.app import serve
        from collab.loop import run_loop
        from collab.telemetry import configure

        flags = {key.removeprefix("server_"): value for key, value in given.items() if key.startswith("server_")}
        try:
            conf = get_conf()
            settings = conf.server_settings({key: value for key, value in flags.items() if value is not None})
            configure(settings.log_level, format=settings.log_format)
            if conf.server_url_is_a_guess and not conf.server_url.endswith(f":{settings.port}"):
                self.stderr.write(
                    f"collab_serve: Django's processes look for the server at {conf.server_url}: set COLLAB['PORT'] "
                    "or COLLAB['SERVER_URL']"
                )
            if settings.migrate:
                create_schema(conf)
            connections.close_all()  # this thread needs none from now on
            authenticator, hooks = DjangoAuthenticator(conf), DjangoHooks(conf)
            code = run_loop(serve(settings, authenticator=authenticator, hooks=[hooks]))
        except CollabError as error:
            raise CommandError(str(error) or error.public) from None
        if authenticator.busy or hooks.busy:
            # Nothing can end a thread, and the interpreter would wait for it.
            self.stderr.write("collab_serve: ends while a function of the project hangs in a thread")
            sys.stdout.flush()
            os._exit(code)
        if code:
            raise SystemExit(code)


def create_schema(conf: Conf) -> None:
    """Create the schema of the documents in the project's database, if they are there."""
    if conf.database is not None:
        connection = connections[conf.database]
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {connection.ops.quote_name(conf.schema or '')}")


def _help(option: Any) -> str:
    text = f"{option.description}{f' [default {option.default}]' if option.default else ''}"
    return text.replace("%", "%%")
