"""Problem details (RFC 9457): how every error over plain HTTP is told.

    {"type": "urn:collab:problem:document_not_found", "title": "Not Found", "status": 404,
     "detail": "no such document", "code": "document_not_found"}

Strategy: ``code`` is for programs and never changes; ``detail`` is a sentence for people, and may. Each code has one
status, and all of them stand in one table, from which the description of the API and its page are made too. A code of
status 429 or 5xx may be repeated, after the seconds of ``Retry-After``; every other one is final: the same request
meets it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aiohttp import hdrs, web

from collab.errors import (
    AccessDenied,
    AccessExpired,
    AccessNotYet,
    AccessUnavailable,
    CollabError,
    ContentError,
    DamagedDocument,
    DecodeError,
    DocumentBusy,
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    DocumentReloaded,
    DocumentTooLarge,
    EditConflict,
    EditOvertaken,
    HistoryGone,
    InvalidDocumentName,
    InvalidMetadata,
    InvalidQuota,
    KeptOut,
    KeyBusy,
    KeyReused,
    LimitExceeded,
    MessageTooLarge,
    NoSuchContent,
    NoSuchTenant,
    NoSuchVersion,
    NoSuchWebhook,
    OutcomeUnknown,
    Overloaded,
    PreconditionFailed,
    QuotaExceeded,
    Refused,
    RepeatError,
    SandboxCrashed,
    SandboxError,
    SandboxTimeout,
    ServerStopping,
    StoreRefused,
    StoreUnavailable,
    TooManyVersions,
    Unauthenticated,
    UpdateError,
    UpdateIncomplete,
)

CONTENT_TYPE: Final = "application/problem+json"

HEADERS: Final = MappingProxyType({hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"})
"""What every answer of the API carries: nobody keeps it, and nobody guesses what it is."""

_TYPE: Final = "urn:collab:problem:"


class Kind(NamedTuple):
    """What can be wrong: a status, and what it means, as a sentence for the documentation."""

    status: int
    meaning: str


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "invalid_request": Kind(400, "a parameter, a header or the body is not as described; `errors` says where"),
        "invalid_name": Kind(400, "a document name is 1 to 512 bytes of UTF-8 without NUL, and not white space alone"),
        "invalid_update": Kind(400, "the bytes are no Yjs update (v1) that every client could read"),
        "unauthenticated": Kind(401, "there is no token, or it is not valid"),
        "access_expired": Kind(401, "the token was good a moment ago"),
        "access_not_yet": Kind(401, "the time of the token has not come"),
        "forbidden": Kind(403, "the token is valid and does not allow this, or the request comes from elsewhere"),
        "kept_out": Kind(403, "an operator keeps this user out for a while"),
        "quota_exceeded": Kind(403, "the tenant of the document has used up a quota; `detail` names it"),
        "refused": Kind(403, "the application does not allow this; `detail` is what it says"),
        "document_not_found": Kind(404, "no document of that name is stored"),
        "content_not_found": Kind(404, "the document has no such root, or nothing at that path"),
        "tenant_not_found": Kind(404, "nothing is known of that tenant"),
        "webhook_not_found": Kind(404, "there is no such receiver of webhooks, or no such delivery is kept"),
        "version_not_found": Kind(404, "the document has no such version"),
        "unknown_resource": Kind(404, "there is nothing at this address"),
        "method_not_allowed": Kind(405, "the address does not have this method; `Allow` names those that it has"),
        "not_acceptable": Kind(406, "none of the formats in `Accept` can be given"),
        "slow_body": Kind(408, "the body came too slowly"),
        "document_exists": Kind(409, "there is a document of that name already"),
        "conflict": Kind(409, "what is there does not allow this"),
        "update_incomplete": Kind(409, "the update refers to what the document lacks; send all that it lacks"),
        "document_deleted": Kind(410, "the document was deleted"),
        "history_gone": Kind(410, "what the document held after this number is too old to be read, or never was"),
        "precondition_failed": Kind(412, "the state is not one that `If-Match` or `If-None-Match` asks for"),
        "too_large": Kind(413, "the body, or the document with it, is larger than this server takes"),
        "unsupported_media_type": Kind(415, "the content type of the body is none that this address takes"),
        "not_possible": Kind(422, "the request is well formed and cannot be done; `detail` says why"),
        "key_reused": Kind(422, "the `Idempotency-Key` belongs to an earlier request, and this is another one"),
        "not_offered": Kind(422, "this server does not do that, by its settings"),
        "too_many_requests": Kind(429, "too much at a time, or in this minute"),
        "internal": Kind(500, "a defect of the server, which is in its log"),
        "unavailable": Kind(503, "the server, its store or whoever decides on access cannot be reached now"),
        "outcome_unknown": Kind(503, "the edit was taken, and it is not known whether it is or will be stored"),
        "document_damaged": Kind(503, "what is stored of the document has to be repaired by an operator"),
    }
)
"""Every code that an error can have."""

_BY_ERROR: Final[Mapping[type[CollabError], str]] = MappingProxyType(
    {
        InvalidDocumentName: "invalid_name",
        InvalidMetadata: "invalid_request",
        UpdateError: "invalid_update",
        DecodeError: "invalid_request",
        Unauthenticated: "unauthenticated",
        AccessExpired: "access_expired",
        AccessNotYet: "access_not_yet",
        AccessDenied: "forbidden",
        QuotaExceeded: "quota_exceeded",
        Refused: "refused",
        KeptOut: "kept_out",
        DocumentNotFound: "document_not_found",
        DocumentExists: "document_exists",
        DocumentDeleted: "document_deleted",
        UpdateIncomplete: "update_incomplete",
        PreconditionFailed: "precondition_failed",
        NoSuchContent: "content_not_found",
        NoSuchVersion: "version_not_found",
        HistoryGone: "history_gone",
        TooManyVersions: "not_possible",
        NoSuchTenant: "tenant_not_found",
        InvalidQuota: "invalid_request",
        NoSuchWebhook: "webhook_not_found",
        EditConflict: "conflict",
        ContentError: "not_possible",
        DocumentTooLarge: "too_large",
        MessageTooLarge: "too_large",
        StoreRefused: "too_large",
        DocumentBusy: "too_many_requests",
        LimitExceeded: "too_many_requests",
        Overloaded: "unavailable",
        RepeatError: "key_reused",
        KeyReused: "key_reused",
        KeyBusy: "unavailable",
        AccessUnavailable: "unavailable",
        StoreUnavailable: "unavailable",
        OutcomeUnknown: "outcome_unknown",
        EditOvertaken: "unavailable",
        ServerStopping: "unavailable",
        DocumentReloaded: "unavailable",
        SandboxTimeout: "unavailable",
        SandboxCrashed: "unavailable",
        SandboxError: "unavailable",
        DamagedDocument: "document_damaged",
    }
)

_RETRY_SECONDS: Final = 1.0


class BadRequest(Exception):
    """What is wrong with a request that no layer below knows of.

    Args:
        reason: a sentence for its sender.
        code: one of ``KINDS``, which has the status.
        retry_after: seconds after which it may be repeated, for a code that may.
        errors: where in the request, each as ``{"at": JSON pointer or name, "reason": sentence}``.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        reason: str,
        code: str = "invalid_request",
        *,
        retry_after: float | None = None,
        errors: list[dict[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.retry_after = retry_after
        self.errors = errors
        self.headers = headers or {}


def code_of(error: CollabError) -> str:
    """Return the code of an error; what has none is a defect."""
    return next((_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR), "internal")


def problem(
    code: str,
    detail: str,
    *,
    retry_after: float | None = None,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Make the answer that tells an error."""
    status = KINDS[code].status
    body: dict[str, Any] = {
        "type": _TYPE + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors is not None:
        body["errors"] = errors
    response = web.json_response(body, status=status, headers=HEADERS, content_type=CONTENT_TYPE)
    if status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if status in (429, 503):
        response.headers[hdrs.RETRY_AFTER] = str(math.ceil(_RETRY_SECONDS if retry_after is None else retry_after))
    if headers is not None:
        response.headers.update(headers)
    return response
