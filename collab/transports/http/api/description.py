"""The description of the HTTP API as OpenAPI 3.1, made of its routes and their models.

Strategy: nothing is written twice. Schemas come from pydantic, errors from the table of problem codes, everything else
from the ``Route``. It is made once, when somebody asks for it: some 40 ms, which a start has no use for.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

from aiohttp import hdrs, web
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from collab.telemetry.release import release
from collab.transports.http.api.events import EVENTS, Event
from collab.transports.http.api.events import HEADERS as EVENT_HEADERS
from collab.transports.http.api.route import JSON, NAME, PREFIX, Answer, AnyRoute, Raw
from collab.transports.problems import CONTENT_TYPE, HEADERS, KINDS

PATH: Final = PREFIX + "/openapi.json"

TITLE: Final = "collab: documents over HTTP"

ALWAYS: Final = (
    "invalid_request",
    "invalid_name",
    "unauthenticated",
    "access_expired",
    "access_not_yet",
    "forbidden",
    "kept_out",
    "too_many_requests",
    "internal",
    "unavailable",
)
"""Problem codes that any route may answer with."""

WITH_BODY: Final = ("slow_body", "too_large", "unsupported_media_type")
"""Problem codes of every route that reads a body."""

_PROBLEM: Final = "Problem"

_ABOUT: Final = """Every error is problem details (RFC 9457) with a `code` that never changes and a `detail` for people.
Answers with status 429, 500 and 503 may be repeated, after the seconds of `Retry-After`; other 4xx are final.

With authentication each request carries `Authorization: Bearer TOKEN`, the same tokens as sockets, or `?token=`.

The name of a document is the rest of the path, with slashes as they are or as `%2F`."""


class Description:
    """The description of some routes.

    Args:
        routes: all that there are.
    """

    def __init__(self, routes: Sequence[AnyRoute]) -> None:
        self._routes = routes

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole of it, as what JSON can hold."""
        return _describe(self._routes)


def _describe(routes: Sequence[AnyRoute]) -> dict[str, Any]:
    """Make the description of the routes, as what JSON can hold."""
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    for route in routes:
        if route.body is not None:
            modes.append((route.body, "validation"))
        modes += [
            (answer.model, "serialization")
            for answer in route.answers
            if isinstance(answer.model, type) and issubclass(answer.model, BaseModel)
        ]
    modes += [(event.message, "validation") for event in EVENTS.values()]
    references, definitions = models_json_schema(
        list(dict.fromkeys(modes)), ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = {_PROBLEM: _problem_schema(), **definitions.get("$defs", {})}
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        operation = _operation(route, references)
        paths[route.address][route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": release(), "description": _ABOUT},
        # Relative to this very address, so that it holds under any prefix: OpenAPI 3.1, server object.
        "servers": [{"url": "../.."}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": dict(paths),
        "webhooks": {kind: {"post": _webhook(kind, event, references)} for kind, event in EVENTS.items()},
        "security": [{"bearer": []}, {}],
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def serve_description(app: web.Application, description: Description) -> None:
    """Serve the description; it tells nothing that needs a token."""

    async def show(request: web.Request) -> web.Response:
        document = await asyncio.to_thread(lambda: description.document)
        return web.json_response(document, headers={**HEADERS, hdrs.CACHE_CONTROL: "no-cache"})

    app.router.add_get(PATH, show)


def codes_of(route: AnyRoute) -> list[str]:
    """List the problem codes of a route, by status."""
    with_body = WITH_BODY if route.body is not None or route.raw is not None else ()
    found = dict.fromkeys((*ALWAYS, *with_body, *route.problems))
    return [code for code in KINDS if code in found]


def _operation(route: AnyRoute, references: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.id,
        "tags": [route.tag],
        "summary": route.summary,
        "description": "\n\n".join(
            part for part in (route.description, f"Access: {route.access}." if route.access else "") if part
        ),
        "parameters": _parameters(route),
        "responses": {str(answer.status): _response(answer, references) for answer in route.answers},
    }
    if route.body is not None:
        schema = references[route.body, "validation"]
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    if route.raw is not None:
        body = operation.setdefault("requestBody", {"required": True, "content": {}})
        body["content"].update(_raw_content(route.raw))
        if route.raw.description:
            body["description"] = route.raw.description
    by_status: defaultdict[int, list[str]] = defaultdict(list)
    for code in codes_of(route):
        by_status[KINDS[code].status].append(code)
    for status, codes in by_status.items():
        operation["responses"][str(status)] = _problem_response(status, codes)
    return operation


def _webhook(kind: str, event: Event, references: Any) -> dict[str, Any]:
    """Describe what receivers are sent."""
    return {
        "operationId": "on_" + kind.replace(".", "_"),
        "summary": event.summary,
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": name in ("webhook-id", "webhook-timestamp"),
                "description": meaning,
                "schema": {"type": "string"},
            }
            for name, meaning in EVENT_HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": references[event.message, "validation"]}},
        },
        "responses": {
            "2XX": {"description": "It was taken."},
            "410": {"description": "The receiver wants nothing more, and is disabled."},
            "default": {"description": "It was not taken: it is sent again later."},
        },
    }


def _parameters(route: AnyRoute) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if NAME in route.path:
        found.append(
            {
                "name": "name",
                "in": "path",
                "required": True,
                "description": "The name of the document.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 512},
            }
        )
    schema = route.query.model_json_schema()
    for name, one in schema.get("properties", {}).items():
        shown = {key: value for key, value in one.items() if key not in ("title", "description", "default")}
        kinds = [kind for kind in shown.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:  # a parameter is left out, it is never null
            shown = {**{key: value for key, value in shown.items() if key != "anyOf"}, **kinds[0]}
        if one.get("default") is not None:
            shown["default"] = one["default"]
        found.append(
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "description": one.get("description", ""),
                "schema": shown,
            }
        )
    for name, meaning in route.headers.items():
        found.append(
            {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}
        )
    return found


def _response(answer: Answer, references: Any) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if isinstance(answer.model, Raw):
        response["content"] = _raw_content(answer.model)
    elif answer.model is not None:
        response["content"] = {JSON: {"schema": references[answer.model, "serialization"]}}
    if answer.raw is not None:
        response["content"].update(_raw_content(answer.raw))
    if answer.headers:
        response["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in answer.headers.items()
        }
    return response


def _raw_content(raw: Raw) -> dict[str, Any]:
    # OpenAPI 3.1: bytes are described by their media type alone.
    return {media: {"schema": {"type": "string"}} if media.startswith("text/") else {} for media in raw.media}


def _problem_response(status: int, codes: Sequence[str]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": "\n\n".join(f"`{code}`: {KINDS[code].meaning}." for code in codes),
        "content": {CONTENT_TYPE: {"schema": {"$ref": f"#/components/schemas/{_PROBLEM}"}}},
    }
    if status in (429, 503):
        response["headers"] = {
            "Retry-After": {"description": "Seconds after which it may be repeated.", "schema": {"type": "string"}}
        }
    return response


def _problem_schema() -> dict[str, Any]:
    """Describe problem details."""
    place = {
        "type": "object",
        "properties": {"at": {"type": "string"}, "reason": {"type": "string"}},
        "required": ["at", "reason"],
    }
    return {
        "title": _PROBLEM,
        "description": "What is wrong (RFC 9457).",
        "type": "object",
        "properties": {
            "type": {"type": "string", "description": "The code as a URN."},
            "title": {"type": "string", "description": "The status in words."},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "A sentence for people, which may change."},
            "code": {"type": "string", "enum": list(KINDS), "description": "For programs; never changes."},
            "errors": {"type": "array", "items": place, "description": "Where in the request, if it is that."},
        },
        "required": ["type", "title", "status", "detail", "code"],
    }
