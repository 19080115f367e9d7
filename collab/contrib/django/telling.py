"""Telling the server that somebody may do something else now."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from asgiref.local import Local
from django.db import models, transaction

from collab.contrib.django.api import Api, ServerError
from collab.contrib.django.conf import get_conf
from collab.contrib.django.tokens import user_id
from collab.errors import ConfigurationError

_log = logging.getLogger("collab.django")

# Who has signed out in the request that is under way: the signal comes before the session has gone.
_leaving = Local()


def tell_changed(document: str | None, user: Any) -> None:
    """Let the server ask again when the open transaction has committed; see ``collab.contrib.django.changed``."""
    who = user_id(user) if isinstance(user, models.Model) else None if user is None else str(user)
    transaction.on_commit(partial(_tell, document, who), robust=True)


def _tell(document: str | None, user: str | None) -> None:
    try:
        Api(get_conf()).check(document, user)
    except (ServerError, ConfigurationError) as error:
        _log.warning("the server was not told of changed access, and asks again later: %s", error)


def signed_out(sender: Any, user: Any = None, **given: Any) -> None:
    """Note that somebody is signing out (``user_logged_out``)."""
    if user is not None:
        _leaving.users = [*getattr(_leaving, "users", ()), user_id(user)]


def tell_signed_out(sender: Any, **given: Any) -> None:
    """Tell the server who has signed out, now that the sessions have gone (``request_finished``)."""
    users = getattr(_leaving, "users", ())
    if users:
        _leaving.users = []
        for user in users:
            _tell(None, user)
