"""What stands in a request: the token and the document's name, for sockets and for plain HTTP."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from aiohttp import web

from collab.protocol.names import decode_document_name


def bearer_token(request: web.Request) -> str:
    """Return the token of a request: from the Authorization header, else the parameter ``token``."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.query.get("token", "")


def raw_document_name(request: web.Request) -> bytes:
    """Return the bytes of the document name in a request's path, percent-decoded.

    The undecoded path is read, because what is not UTF-8 must be refused rather than replaced.
    """
    resource = request.match_info.route.resource
    assert resource is not None
    prefix = resource.canonical.partition("{")[0]
    return unquote_to_bytes(request.rel_url.raw_path)[len(prefix.encode()) :]


def public_path(request: web.Request) -> str:
    """Return the path of a request as its client sees it, percent-encoded: below the mount of an ASGI application."""
    mount: str = getattr(request.protocol, "root_path", "")
    return mount + request.rel_url.raw_path


def document_name(request: web.Request) -> str:
    """Return the document name in a request's path.

    Raises:
        InvalidDocumentName: see ``decode_document_name``.
    """
    return decode_document_name(raw_document_name(request))
