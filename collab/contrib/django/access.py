"""Who may do what, as the project's own function says: for people with a session of Django, and for bearers of its
tokens.

Strategy: a session cookie says who somebody is, and nothing of what that person wants: a browser sends it along with
what any page asks for. So it counts for pages alone that the project trusts: those of its own hosts (``ALLOWED_HOSTS``)
and of ``CSRF_TRUSTED_ORIGINS``, as Django's own protection against forged requests has it. Browsers name the page of a
WebSocket and of each request that writes (``Origin``); for others they say whether it is a page of the same origin.

Sessions are only read: what Django's middleware writes into a session would need a response to go with. The function is
asked again in intervals while somebody has a document open, so whoever signs out or loses a permission does not stay.
"""

from __future__ import annotations

import base64
import inspect
import json
import random
import time
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.http.request import split_domain_port, validate_host
from django.utils.crypto import constant_time_compare

from collab.app import auth_options
from collab.auth.access import AccessRequest, Grant, TokenChecker
from collab.auth.factory import make_authenticator
from collab.contrib.django.conf import Conf
from collab.contrib.django.threads import Threads
from collab.contrib.django.tokens import CLAIM, FOR_USER, shown_name, user_id
from collab.errors import Forbidden, Unauthenticated
from collab.net import DEFAULT_PORTS, Peer
from collab.protocol.session import Access

_ORDER: Final = (Access.READ, Access.WRITE, Access.ADMIN)

# By which part the time until the next question is spread: people come back together after a restart.
_SPREAD: Final = 0.2

_LOCAL_HOSTS: Final = (".localhost", "127.0.0.1", "[::1]")
"""The hosts that Django answers for under DEBUG where ALLOWED_HOSTS is empty (``HttpRequest.get_host``)."""


class DjangoAuthenticator:
    """Decides by the project's function; see ``collab.auth.access.Authenticator`` for the promise.

    Hand it to ``create_app``, which bounds in time and number what it is asked.
    """

    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._threads = Threads(conf.threads, "access")
        made = make_authenticator(auth_options(conf.server_settings()))
        assert made is not None  # there is a secret
        self._tokens = made
        called = getattr(conf.permission, "__call__", None)  # noqa: B004
        self._is_async = any(map(inspect.iscoroutinefunction, (conf.permission, called)))

    @property
    def cookies(self) -> frozenset[str]:
        """The name of the session cookie."""
        return frozenset({django_settings.SESSION_COOKIE_NAME})

    @property
    def busy(self) -> bool:
        """Whether a call of the function is under way."""
        return self._threads.busy

    def trusts(self, origin: str, client: Peer) -> bool:
        """Tell whether pages of an origin may act for whoever looks at them."""
        return is_trusted(origin, client)

    async def start(self) -> None:
        """Open what checks tokens."""
        await self._tokens.start()

    async def close(self) -> None:
        """Let go of everything; a function that hangs is left alone."""
        await self._tokens.close()
        self._threads.close()

    async def check_token(self, token: str) -> None:
        """Check that a token is good, whatever it allows; raises as ``authenticate`` does."""
        if isinstance(self._tokens, TokenChecker):
            await self._tokens.check_token(token)

    async def authenticate(self, request: AccessRequest) -> Grant:
        """Say what the client may do, by its token, else by its session, else as nobody in particular.

        Raises:
            Unauthenticated: nobody is signed in, and that is needed; or the token is not good.
            Forbidden: the function allows its user nothing with this document.
            AccessUnavailable: the token cannot be checked now.
        """
        if not request.token:
            found = await self._ask(request.document_name, session=_session_key(request.client))
            return _granted(self._conf, *found)
        grant = await self._tokens.authenticate(request)
        if _claims(request.token).get(CLAIM) != FOR_USER:
            return grant
        assert grant.user is not None
        user, allowed = await self._ask(request.document_name, user=grant.user)
        if allowed is not None:
            allowed = min(allowed, grant.access, key=_ORDER.index)
        return _granted(self._conf, user, allowed, grant.expires_at)

    async def _ask(
        self, document: str, *, session: str | None = None, user: str | None = None
    ) -> tuple[Any, Access | None]:
        """Return who somebody is, and what the function allows."""

        def find() -> Any:
            return _user_of_session(session) if user is None else _user_of_token(user)

        if self._is_async:
            found = await self._threads.run(find)
            return found, _access(await self._conf.permission(found, document))

        def ask() -> tuple[Any, Access | None]:
            found = find()
            return found, _access(self._conf.permission(found, document))

        return await self._threads.run(ask)


def _granted(conf: Conf, user: Any, access: Access | None, expires_at: float | None = None) -> Grant:
    anonymous = user.is_anonymous
    if access is None and anonymous:
        raise Unauthenticated("nobody is signed in", public="sign in first")
    if access is None:
        raise Forbidden("the permission function allows nothing", public="you may not open this document")
    again = conf.recheck_seconds * random.uniform(1 - _SPREAD, 1)
    who = None if anonymous else user_id(user)
    return Grant(access, who, None if anonymous else shown_name(user), expires_at, time.time() + again)


def _access(found: object) -> Access | None:
    """Read what the function has given; what is none of the words lets nobody in for now."""
    if found is None or isinstance(found, Access):
        return found
    if not isinstance(found, str):
        raise TypeError(f'permission gives "read", "write", "admin" or None, and not {type(found).__name__}')
    return Access(found)


def _claims(token: str) -> dict[str, Any]:
    """Return the claims of a token whose signature is good."""
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


# People


def _session_key(client: Peer | None) -> str | None:
    """Return the session cookie, if the page that sends it may act for whoever looks at it."""
    browser = None if client is None else client.browser
    if client is None or browser is None:
        return None
    origin = browser.origin
    trusted = browser.site == "same-origin" if origin is None else is_trusted(origin.lower(), client)
    return dict(browser.cookies).get(django_settings.SESSION_COOKIE_NAME) if trusted else None


def _user_of_session(key: str | None) -> Any:
    """Return the user who is signed in with a session, as ``django.contrib.auth.get_user`` does, and write nothing."""
    if not key:
        return AnonymousUser()
    session = import_module(django_settings.SESSION_ENGINE).SessionStore(key)
    try:
        user_key = get_user_model()._meta.pk.to_python(session[SESSION_KEY])
        path = session[BACKEND_SESSION_KEY]
    except (KeyError, ValidationError):
        return AnonymousUser()
    if path not in django_settings.AUTHENTICATION_BACKENDS:
        return AnonymousUser()
    user = load_backend(path).get_user(user_key)
    if user is None or not _same_password(user, session.get(HASH_SESSION_KEY)):
        return AnonymousUser()
    return user


def _same_password(user: Any, known: object) -> bool:
    """Tell whether a session is of the password that its user has now."""
    if not hasattr(user, "get_session_auth_hash"):
        return True
    hashes = [user.get_session_auth_hash()]
    if hasattr(user, "get_session_auth_fallback_hash"):
        hashes += user.get_session_auth_fallback_hash()
    return isinstance(known, str) and any(constant_time_compare(known, each) for each in hashes)


def _user_of_token(key: str) -> Any:
    """Return the user that a token names; raises ``Unauthenticated``."""
    model = get_user_model()
    try:
        user = model._default_manager.get(pk=model._meta.pk.to_python(key))
    except (ObjectDoesNotExist, ValidationError):
        raise Unauthenticated("the user of the token is not there", public="sign in again") from None
    if not user.is_active:
        raise Unauthenticated("the user of the token is not active", public="sign in again")
    return user


# Pages


def is_trusted(origin: str, client: Peer) -> bool:
    """Tell whether pages of an origin, in lower case, may act for whoever looks at them.

    They may if they are of the host that was asked, of a host in ``ALLOWED_HOSTS`` on the port of its scheme (on any
    port under ``DEBUG``, where Django's own server has another one), or listed in ``CSRF_TRUSTED_ORIGINS``.
    """
    scheme, _, where = origin.partition("://")
    if scheme not in DEFAULT_PORTS or not where or (scheme == "http" and client.secure):
        return False
    if any(_matches(origin, listed.lower()) for listed in django_settings.CSRF_TRUSTED_ORIGINS):
        return True
    host, port = split_domain_port(where)
    allowed = list(django_settings.ALLOWED_HOSTS)
    if django_settings.DEBUG and not allowed:
        allowed = list(_LOCAL_HOSTS)
    default = f":{DEFAULT_PORTS[scheme]}"
    if where.removesuffix(default) == client.host.removesuffix(default):
        return bool(host) and validate_host(host, allowed)
    if port not in ("", str(DEFAULT_PORTS[scheme])) and not django_settings.DEBUG:
        return False
    # All hosts of the world are none of the project's own.
    return bool(host) and validate_host(host, [each for each in allowed if each != "*"])


def _matches(origin: str, listed: str) -> bool:
    """Compare with an entry of ``CSRF_TRUSTED_ORIGINS``: an origin, or one with ``*.`` before its host."""
    if "*" not in listed:
        return origin == listed.rstrip("/")
    one, other = urlsplit(origin), urlsplit(listed.replace("*", "", 1))
    return one.scheme == other.scheme and one.netloc.endswith(other.netloc)
