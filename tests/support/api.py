"""Answers of the HTTP API, each compared with the description that the server gives of itself."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from collab.app import DESCRIPTION, create_app
from collab.settings import Settings

_BASE = "urn:description"


@cache
def description() -> dict[str, Any]:
    """Return the description of the API as a server with the default settings gives it."""
    return create_app(Settings(data_dir=Path("nowhere")))[DESCRIPTION].document


async def told(response: aiohttp.ClientResponse) -> Any:
    """Return what an answer says: its JSON, the ``detail`` of a problem, None without a body; bytes of anything else.

    It must be as the description of its address says.
    """
    body = await response.read()
    check(response.method, response.url.path, response.status, response.headers.get("Content-Type", ""), body)
    if not body:
        return None
    if "json" not in response.content_type or response.content_type == "application/x-ndjson":
        return body
    said = json.loads(body)
    return said["detail"] if response.content_type == "application/problem+json" else said


def check(method: str, path: str, status: int, content_type: str, body: bytes) -> None:
    """Compare an answer with the description; addresses outside the API are problems or nothing."""
    media = content_type.partition(";")[0]
    operation = find_operation(method, path)
    if operation is None:
        assert status in (403, 404, 405, 429), (method, path, status)
        _check_schema({"$ref": "#/components/schemas/Problem"}, body, (method, path, status))
        return
    place = (operation["operationId"], status)
    assert str(status) in operation["responses"], place
    content = operation["responses"][str(status)].get("content", {})
    if method == "HEAD" or not content:
        assert not body, (place, body)
        return
    assert media in content, (place, media)
    if "schema" in content[media] and "json" in media:
        _check_schema(content[media]["schema"], body, place)


def find_operation(method: str, path: str) -> dict[str, Any] | None:
    """Find what the description says of a request."""
    at = path.index("/api/" if "/api/" in path else "/.well-known/")
    for template, operations in description()["paths"].items():
        pattern = re.escape(template).replace(r"\{name\}", r"[\s\S]+")
        if re.fullmatch(pattern, path[at:]):
            found: dict[str, Any] | None = operations.get("get" if method == "HEAD" else method.lower())
            return found
    return None


def check_event(message: dict[str, Any]) -> None:
    """Compare a message of a webhook with the description."""
    operation = description()["webhooks"][message["type"]]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    _check_schema(schema, json.dumps(message).encode(), message["type"])


def _check_schema(schema: dict[str, Any], body: bytes, place: object) -> None:
    resource = Resource.from_contents(description(), default_specification=DRAFT202012)
    registry = Registry().with_resource(_BASE, resource)
    whole = {"$ref": f"{_BASE}{schema['$ref']}"} if "$ref" in schema else schema
    errors = [error.message for error in Draft202012Validator(whole, registry=registry).iter_errors(json.loads(body))]
    assert not errors, (place, errors[:3])
