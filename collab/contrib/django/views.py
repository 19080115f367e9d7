"""The view that gives tokens, for front ends whose server is on another host than the session cookie.

Strategy: a token is as good as its user for some minutes, so nobody keeps the answer, and a page of somebody else can
neither read it nor make it be used: browsers show the answer to pages of the same origin alone, unless the project adds
CORS headers for others; a POST passes Django's protection against forged requests.
"""

from __future__ import annotations

import inspect
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_cookie

from collab.contrib.django.conf import get_conf
from collab.contrib.django.tokens import shown_name, user_id, user_token
from collab.errors import InvalidDocumentName
from collab.protocol.names import check_document_name
from collab.protocol.session import Access

_COLOURS = 12
"""Colours that people are shown in: more are not told apart."""


@never_cache
@vary_on_cookie
@require_http_methods(["GET", "POST"])
def token(request: HttpRequest) -> HttpResponse:
    """Give the signed-in user a token for the document ``document``.

    200 ``{"token", "document", "access", "expires_in", "user": {"id", "name", "color"}}``; 400 no name of a document;
    401 nobody is signed in; 403 the function allows nothing.
    """
    given = request.POST if request.method == "POST" else request.GET
    document = given.get("document", "")
    try:
        check_document_name(document)
    except InvalidDocumentName as error:
        return _refused(400, error.public)
    user: Any = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return _refused(401, "sign in first")
    conf = get_conf()
    access = ask(conf.permission, user, document)
    if access is None:
        return _refused(403, "you may not open this document")
    answer = {
        "token": user_token(conf, user, document, access.value),
        "document": document,
        "access": access.value,
        "expires_in": int(conf.token_seconds),
        "user": {"id": user_id(user), "name": shown_name(user), "color": colour(user)},
    }
    return _plain(JsonResponse(answer))


def ask(permission: Any, user: Any, document: str) -> Access | None:
    """Ask the project's function, plain or async, in the thread of a request; raises what it raises."""
    called = getattr(permission, "__call__", None)  # noqa: B004
    if any(map(inspect.iscoroutinefunction, (permission, called))):
        found = async_to_sync(permission)(user, document)
    else:
        found = permission(user, document)
    return None if found is None else Access(found)


def colour(user: Any) -> str:
    """Give the colour that a user is shown in: the same everywhere."""
    number = sum(byte * (place + 7) for place, byte in enumerate(user_id(user).encode()))
    return f"hsl({number % _COLOURS * (360 // _COLOURS)} 70% 45%)"


def _refused(status: int, detail: str) -> HttpResponse:
    return _plain(JsonResponse({"detail": detail}, status=status))


def _plain(response: HttpResponse) -> HttpResponse:
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    return response
