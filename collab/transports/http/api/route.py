"""Routes of the HTTP API: what each takes and gives, said once, for the server and for the description.

Strategy: a ``Route`` names its method, address and models. ``add_routes`` serves it: the query is read into its model
before the handler is called, the body when the handler asks for it (``Call.body``), so that a handler decides who may
ask before it waits for anything. ``collab.transports.http.api.description`` makes OpenAPI 3.1 of the same routes. So
what is described is what is read; that what is answered is described is a matter of tests (``tests/support/api.py``).

The name of a document is the rest of a path, with slashes as they are or as ``%2F``. So whatever concerns one document
has a resource of its own before the name, and no name can be taken for another address.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import unquote

from aiohttp import hdrs, web
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, ConfigDict, ValidationError

from collab.telemetry.tracing import span
from collab.transports.http.answers import MAX_BODY_BYTES, Handler, Permission, answering
from collab.transports.problems import HEADERS, BadRequest, problem
from collab.transports.requests import document_name

PREFIX: Final = "/api/v1"
"""Where the API begins. What is there stays compatible; another version would get another number."""

NAME: Final = "{name}"
"""What stands in the path of a route for the name of a document; it is the path's end."""

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
OCTETS: Final = "application/octet-stream"

_NAME_PATTERN: Final = r"{name:[\s\S]+}"

# Faults of one request that are told; a body of 16 KiB can hold a thousand.
_MAX_ERRORS = 10
_MAX_PLACE = 100


class Model(BaseModel):
    """The base of all bodies and answers: nothing unknown, no silent conversion, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Query(BaseModel):
    """The base of all parameters; they are texts, so numbers are read from texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    """No parameters."""


class NoBody(Model):
    """No body."""


class Raw:
    """An answer or a body of bytes or text that is no JSON of ours; ``media`` are its content types."""

    def __init__(self, *media: str, description: str = "") -> None:
        self.media = media
        self.description = description


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a route.

    Attributes:
        status: the HTTP status.
        description: when it is given, as a sentence.
        model: the model of its JSON, what else it is, or None for an answer without a body.
        headers: its headers beyond what all answers have, each with what it says.
        raw: what else it may be, beside the model.
    """

    status: int
    description: str
    model: type[BaseModel] | Raw | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: Raw | None = None


Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=BaseModel)


class Call(Generic[Q, B]):
    """One request of a route.

    Attributes:
        request: as it came.
        query: its parameters.
    """

    __slots__ = ("_body", "_permission", "_route", "query", "request")

    def __init__(self, route: Route[Q, B], permission: Permission, request: web.Request, query: Q) -> None:
        self._route = route
        self._permission = permission
        self.request = request
        self.query = query

    @property
    def name(self) -> str:
        """The name of the document in the path; raises ``InvalidDocumentName``."""
        return document_name(self.request)

    async def body(self, *, known: bool = False) -> B:
        """Read the JSON body; see ``Permission.read_body`` for ``known`` and what it raises."""
        model = self._route.body
        assert model is not None
        data = await self._permission.read_body(self.request, (JSON,), most=self._route.most, known=known)
        if self._route.check is not None:
            self._route.check(data)
        try:
            return model.model_validate_json(bytes(data))
        except ValidationError as error:
            raise invalid(error, "the body") from None


@dataclass(frozen=True, slots=True)
class Route(Generic[Q, B]):
    """One method of one address.

    Attributes:
        method: GET (which answers HEAD too), POST, PUT, PATCH or DELETE.
        path: below ``prefix``, such as ``/documents/{name}``.
        handler: does it, and raises what is wrong.
        id: the name of the operation in the description; never changes.
        tag: the part of the API that it belongs to.
        summary: what it does, in a line.
        description: the rest, in Markdown.
        access: what its sender must be allowed, as a sentence.
        query: the model of its parameters.
        body: the model of its JSON body; None where there is none, or it is ``raw``.
        raw: what else its body is, or may be beside that.
        most: bytes of its body.
        check: looks at the bytes of a body before they are parsed; raises ``BadRequest``.
        answers: all answers that tell no error.
        problems: the codes of the errors that it has beyond those of every route.
        headers: request headers that it reads, each with what it says.
        prefix: ``PREFIX``, but for an address that a standard says.
    """

    method: str
    path: str
    handler: Callable[[Call[Q, B]], Awaitable[web.StreamResponse]]
    id: str
    tag: str
    summary: str
    answers: Sequence[Answer]
    query: type[Q] = NoQuery  # type: ignore[assignment]
    body: type[B] | None = None
    raw: Raw | None = None
    most: int = MAX_BODY_BYTES
    check: Callable[[bytearray], None] | None = None
    description: str = ""
    access: str = ""
    problems: Sequence[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    prefix: str = PREFIX

    @property
    def address(self) -> str:
        """The whole path, with ``{name}`` for the name of a document."""
        return self.prefix + self.path


AnyRoute = Route[Any, Any]


def add_routes(app: web.Application, routes: Iterable[AnyRoute], permission: Permission) -> None:
    """Serve routes, and answer what asks for anything else below ``PREFIX``; so this is called once."""
    methods: defaultdict[str, set[str]] = defaultdict(set)
    for route in routes:
        path = route.address.replace(NAME, _NAME_PATTERN)
        handler = answering(_served(route, permission))
        if route.method == hdrs.METH_GET:
            app.router.add_get(path, handler)
            methods[route.address].add(hdrs.METH_HEAD)
        else:
            app.router.add_route(route.method, path, handler)
        methods[route.address].add(route.method)
    for address, known in methods.items():
        app.router.add_route("*", address.replace(NAME, _NAME_PATTERN), _other_method(sorted(known)))
    app.router.add_route("*", PREFIX + r"/{rest:[\s\S]*}", _unknown)


def json_response(model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Make the answer of a model, which nobody keeps; fields that are not set are left out where they may be."""
    return web.Response(
        body=model.model_dump_json(by_alias=True, exclude_unset=True).encode(),
        status=status,
        content_type=JSON,
        headers={**HEADERS, **(headers or {})},
    )


def no_content() -> web.Response:
    """Make the answer without a body."""
    return web.Response(status=204, headers=HEADERS)


def invalid(error: ValidationError, what: str) -> BadRequest:
    """Say what a model does not take, without saying it again."""
    errors = [
        {"at": _place(one["loc"]), "reason": one["msg"].encode(errors="replace").decode()}
        for one in error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_ERRORS]
    ]
    first = errors[0]
    where = f" at {first['at']}" if first["at"] else ""
    return BadRequest(f"{what} is not as described{where}: {first['reason']}", errors=errors)


def _place(location: Sequence[str | int]) -> str:
    """Make a JSON pointer (RFC 6901)."""
    place = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in location)
    return place[:_MAX_PLACE].encode(errors="replace").decode()


def _served(route: AnyRoute, permission: Permission) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        named = {"http.request.method": request.method, "http.route": route.address}
        # It says what the sender has done itself; who may not call at all gets a span of one refusal.
        with span(f"{request.method} {route.address}", named, kind=SpanKind.SERVER, headers=request.headers) as current:
            response = await route.handler(Call(route, permission, request, _read_query(route.query, request)))
            current.set_attribute("http.response.status_code", response.status)
            return response

    return handle


def _read_query(model: type[Query], request: web.Request) -> Query:
    found: dict[str, str] = {}
    for key, value in request.query.items():
        if key == "token":
            continue  # by it the sender may say who it is, on every address
        if key in found:
            raise BadRequest(f"the parameter {key[:_MAX_PLACE]!r} is there twice".encode(errors="replace").decode())
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRequest("a parameter is not UTF-8") from None
        found[key] = value
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise invalid(error, "the query") from None


def _other_method(known: Sequence[str]) -> Handler:
    allowed = ", ".join(known)

    async def refuse(request: web.Request) -> web.StreamResponse:
        return problem("method_not_allowed", f"this address has {allowed}", headers={hdrs.ALLOW: allowed})

    return refuse


async def _unknown(request: web.Request) -> web.StreamResponse:
    path = unquote(request.path, errors="replace")[:_MAX_PLACE]
    return problem("unknown_resource", f"there is nothing at {path}".encode(errors="replace").decode())
