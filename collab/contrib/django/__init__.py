"""Django: who may do what is decided by a function of the project, and a model field is edited together.

    INSTALLED_APPS += ["collab.contrib.django"]
    COLLAB = {"PERMISSION": "notes.collab.permission"}

Strategy: the server is a process of its own (``manage.py collab_serve``) with the project's settings, so that it can
read sessions and ask the project's function. Django's own processes speak to it over its HTTP API. Nothing here is
imported before Django asks for it: an application is named in the settings before they can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collab.contrib.django.access import DjangoAuthenticator
    from collab.contrib.django.hooks import DjangoHooks
    from collab.settings import Settings

__all__ = ["authenticator", "changed", "hooks", "settings", "token"]


def authenticator() -> DjangoAuthenticator:
    """Make what decides on access, for ``create_app(settings(), authenticator())``; Django has to be set up.

    Raises:
        ConfigurationError: the settings are wrong; ``manage.py check`` says all that is.
    """
    from collab.contrib.django.access import DjangoAuthenticator
    from collab.contrib.django.conf import get_conf

    return DjangoAuthenticator(get_conf())


def hooks() -> DjangoHooks:
    """Make what sends signals and keeps fields up to date, for ``create_app(settings(), ..., hooks=[hooks()])``.

    Raises:
        ConfigurationError: the settings are wrong.
    """
    from collab.contrib.django.conf import get_conf
    from collab.contrib.django.hooks import DjangoHooks

    return DjangoHooks(get_conf())


def settings(**given: object) -> Settings:
    """Give the settings of the server as ``COLLAB`` and the rest of Django's settings say; ``given`` comes first.

    Raises:
        ConfigurationError: something in them cannot be used.
    """
    from collab.contrib.django.conf import get_conf

    return get_conf().server_settings(given)


def token(user: Any, document: str, access: str, *, seconds: float | None = None) -> str:
    """Make a token by which a user opens one document, for ``COLLAB["TOKEN_SECONDS"]`` or for ``seconds``.

    It allows at most ``access``: the server asks the project's function as well, and again while the document is open.
    """
    from collab.contrib.django.conf import get_conf
    from collab.contrib.django.tokens import user_token

    return user_token(get_conf(), user, document, access, seconds)


def changed(document: str | None = None, user: Any = None) -> None:
    """Let the server ask again who may do what: call it when a permission has changed.

    Live sessions of ``document`` and of ``user`` (a user or its key) are looked at, of all where neither is given. It
    is done when the transaction that is open has committed, and never raises: what fails is logged, and access is asked
    about again within ``COLLAB["RECHECK_SECONDS"]`` anyway.
    """
    from collab.contrib.django.telling import tell_changed

    tell_changed(document, user)
