"""What Schemathesis has to know of bodies that are no JSON: named by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import schemathesis

_MAX_ADDRESS = 6_000


@schemathesis.serializer("application/x-ndjson", "application/x-tar")
def stream(context: Any, value: Any) -> bytes:
    """Send whatever was thought of as a stream of documents."""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out addresses that no HTTP server reads: they are refused before anybody knows what they ask for."""
    query = urlencode({key: str(value) for key, value in (case.query or {}).items()}, errors="replace")
    return len(quote(str((case.path_parameters or {}).get("name", "")), errors="replace")) + len(query) < _MAX_ADDRESS
