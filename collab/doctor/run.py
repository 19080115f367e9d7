"""All checks, one after the other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from collab.app import auth_options, create_app, make_signer
from collab.auth.factory import make_authenticator
from collab.doctor.certificate import look_at_certificate
from collab.doctor.database import look_at_database
from collab.doctor.findings import Finding, failed, ok
from collab.doctor.machine import look_at_machine
from collab.doctor.public import look_from_outside
from collab.errors import ConfigurationError
from collab.settings import Settings
from collab.storage.urls import parse_database_url

MEND_OPTIONS = "mend the option that it names (docs/configuration.md)"


async def examine(
    settings: Settings, public: str | None = None, clock: Callable[[], float] = time.time
) -> AsyncIterator[Finding]:
    """Look at everything that a server with these settings needs, and with ``public`` at the way to it."""
    yield _configuration(settings)
    try:
        url = parse_database_url(settings.database_url, settings.data_dir)
    except ConfigurationError as error:
        yield failed("database", str(error), "mend --database-url")
    else:
        async for finding in look_at_database(settings, url, clock):
            yield finding
        for finding in look_at_machine(settings, url):
            yield finding
    yield look_at_certificate(settings, clock())
    if public is not None:
        async for finding in look_from_outside(public, clock):
            yield finding


def _configuration(settings: Settings) -> Finding:
    """Build the server of these settings, without a start."""
    try:
        signer = make_signer(settings)
        authenticator = make_authenticator(auth_options(settings), signer)
        settings.check_exposure(authenticator is not None)
        settings.check_metrics()
        create_app(settings, authenticator, signer=signer)
    except ConfigurationError as error:
        return failed("configuration", str(error), MEND_OPTIONS)
    return ok("configuration", "the options fit together")
