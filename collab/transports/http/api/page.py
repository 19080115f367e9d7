"""``/api/docs``: the description of the HTTP API as one page, for people.

Strategy: the page is made of the description when it is asked for; it has no script and loads nothing, from here or
elsewhere, so it can be read wherever the server can be reached, and under a policy that allows nothing but its styles.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from aiohttp import hdrs, web

from collab.transports.http.api.description import Description
from collab.transports.problems import KINDS

PATH: Final = "/api/docs"

_METHODS = ("get", "post", "put", "patch", "delete")

_STYLE: Final = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #57606a; --shade: #f6f8fa; --link: #0a5bc4; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #9198a1; --shade: #151b23; --link: #6cb0ff; }
  body { background: #0d1117; color: #f0f6fc; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; }
a { color: var(--link); }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { border-bottom: 1px solid var(--line); font-size: 1.25rem; margin: 2.5rem 0 1rem; padding-bottom: .3rem; }
h3 { font-size: 1rem; margin: 0; }
h4 { font-size: .9rem; margin: 1.2rem 0 .4rem; }
code { background: var(--shade); border-radius: 4px; font: .875em ui-monospace, monospace; overflow-wrap: anywhere;
  padding: .1em .3em; }
article { border: 1px solid var(--line); border-radius: 8px; margin: 1rem 0; padding: 1rem; }
article > p { margin: .5rem 0 0; }
.method { border: 1px solid currentcolor; border-radius: 4px; font: 700 .75rem ui-monospace, monospace;
  margin-right: .5rem; padding: .15rem .4rem; }
.soft { color: var(--soft); }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
td, th { border-top: 1px solid var(--line); padding: .4rem .6rem .4rem 0; text-align: left; vertical-align: top; }
td:first-child, th:first-child { white-space: nowrap; width: 12rem; }
nav ul { columns: 18rem; list-style: none; padding: 0; }
details > summary { cursor: pointer; margin-top: 1rem; }
@media (max-width: 40rem) {
  td, th { display: block; padding: .2rem 0; border: 0; }
  td:first-child, th:first-child { border-top: 1px solid var(--line); padding-top: .5rem; white-space: normal;
    width: auto; }
}
"""

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "style-src 'sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode() + "'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)


def serve_page(app: web.Application, description: Description) -> None:
    """Serve the page."""
    headers = {hdrs.CACHE_CONTROL: "no-cache", "Content-Security-Policy": _POLICY}

    async def show(request: web.Request) -> web.Response:
        text = await asyncio.to_thread(lambda: render(description.document))
        return web.Response(text=text, content_type="text/html", headers=headers)

    app.router.add_get(PATH, show)


def render(description: Mapping[str, Any]) -> str:
    """Make the page of a description that ``Description.document`` gives."""
    info = description["info"]
    schemas = description["components"]["schemas"]
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{escape(info['title'])}</h1>",
            _paragraphs(info["description"]),
            '<p>For programs: <a href="v1/openapi.json">openapi.json</a>.</p>',
            *_contents(description),
            *_operations(description),
            *_webhooks(description),
            '<h2 id="models">Models</h2>',
            *(_model(name, schema) for name, schema in schemas.items()),
            '<h2 id="problems">Codes of errors</h2><table><tr><th>code</th><th>status and meaning</th></tr>',
            *(
                f"<tr><td><code>{escape(code)}</code></td><td>{kind.status}: {_inline(kind.meaning)}</td></tr>"
                for code, kind in KINDS.items()
            ),
            "</table></main></body></html>\n",
        )
    )


def _by_tag(description: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, operations in description["paths"].items():
        for method in _METHODS:
            if method in operations and tag in operations[method]["tags"]:
                yield method, path, operations[method]


def _contents(description: Mapping[str, Any]) -> Iterator[str]:
    yield "<nav aria-label='Contents'><ul>"
    for tag in description["tags"]:
        for method, path, operation in _by_tag(description, tag["name"]):
            yield f"<li><a href='#{operation['operationId']}'>{method.upper()} {escape(path)}</a></li>"
    yield "<li><a href='#webhooks'>Webhooks</a></li>"
    yield "<li><a href='#models'>Models</a></li><li><a href='#problems'>Codes of errors</a></li></ul></nav>"


def _operations(description: Mapping[str, Any]) -> Iterator[str]:
    for tag in description["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2>"
        for method, path, operation in _by_tag(description, tag["name"]):
            yield f"<article id='{operation['operationId']}'><h3><span class='method'>{method.upper()}</span>"
            yield f"<code>{escape(path)}</code></h3><p>{_inline(operation['summary'])}</p>"
            yield _paragraphs(operation["description"])
            yield from _parameters(operation["parameters"])
            if "requestBody" in operation:
                body = operation["requestBody"]
                yield f"<h4>Body</h4><p>{_content(body['content'])}</p>{_paragraphs(body.get('description', ''))}"
            yield from _answers(operation["responses"])
            yield "</article>"


def _webhooks(description: Mapping[str, Any]) -> Iterator[str]:
    yield '<h2 id="webhooks">What receivers of webhooks are sent</h2>'
    for kind, operations in description["webhooks"].items():
        operation = operations["post"]
        yield f"<article id='{operation['operationId']}'><h3><code>{escape(kind)}</code></h3>"
        yield f"<p>{_inline(operation['summary'])} {_content(operation['requestBody']['content'])}</p></article>"


def _parameters(parameters: list[Mapping[str, Any]]) -> Iterator[str]:
    if not parameters:
        return
    yield "<h4>Parameters</h4><table>"
    for one in parameters:
        where = f"{one['in']}{', required' if one['required'] else ''}"
        yield f"<tr><td><code>{escape(one['name'])}</code> <span class='soft'>{where}</span></td>"
        yield f"<td>{_type(one['schema'])} {_inline(one['description'])}</td></tr>"
    yield "</table>"


def _answers(responses: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "<h4>Answers</h4><table>"
    errors: list[str] = []
    for status, response in responses.items():
        if int(status) >= 400:
            errors += re.findall(r"`(\w+)`: ", response["description"])
            continue
        content = _content(response["content"]) + " " if "content" in response else ""
        headers = "".join(
            f"<br>Header <code>{escape(name)}</code>: {_inline(header['description'])}"
            for name, header in response.get("headers", {}).items()
        )
        yield f"<tr><td>{status}</td><td>{content}{_inline(response['description'])}{headers}</td></tr>"
    codes = ", ".join(f"<code>{escape(code)}</code>" for code in errors)
    yield f"<tr><td><a href='#problems'>errors</a></td><td>{codes}</td></tr></table>"


def _content(content: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        f"<code>{escape(media)}</code> {_type(one['schema']) if '$ref' in one.get('schema', {}) else ''}".strip()
        for media, one in content.items()
    )


def _model(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code> <span class='soft'>{'required' if field in required else ''}</span></td>"
        f"<td>{_type(one)} {_inline(one.get('description', ''))}</td></tr>"
        for field, one in schema.get("properties", {}).items()
    )
    about = f"<p>{_inline(schema.get('description', ''))}</p>" if schema.get("description") else ""
    return (
        f"<article id='model-{escape(name)}'><h3><code>{escape(name)}</code></h3>{about}<table>{rows}</table></article>"
    )


def _type(schema: Mapping[str, Any]) -> str:
    """Say what a value is, in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f"<a href='#model-{name}'>{name}</a>"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(one) for one in schema[key])
    kind = str(schema.get("type", "any value"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "from"),
            ("maximum", "to"),
            ("minLength", "length from"),
            ("maxLength", "length to"),
            ("default", "default"),
        )
        if schema.get(key) not in (None, "")
    ]
    return f"<span class='soft'>{escape(', '.join([schema.get('format', kind), *bounds]))}.</span>"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part.strip())


def _inline(text: str) -> str:
    """Show a line of Markdown, of which only code is used."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
