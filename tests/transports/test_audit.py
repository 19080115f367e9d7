"""The audit over the whole application: what each door writes of it, and ``/api/v1/audit``."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from collab.app import DESCRIPTION, HUB
from collab.protocol.session import Access
from tests.support.waiting import happens
from tests.support.wsclient import text_update
from tests.transports.conftest import Serve, Served
from tests.transports.test_control import Client, Table, client, http
from tests.transports.test_people import Api

__all__ = ["client", "http"]

# Operations that are an edit, create something, show somebody, or change nothing that others own.
UNAUDITED = {
    *("create_document", "ensure_document", "copy_document", "replace_content", "change_content", "apply_update"),
    *("show_agent", "end_agent", "send_message", "make_version", "change_version"),
    *("compact_document", "verify_document"),
}
READS = {"export_documents", "list_connections", "list_webhook_deliveries", "list_audit", "list_log"}


@pytest.fixture
def table() -> Table:
    table = Table()
    table.rights["ada", "a"] = Access.WRITE
    return table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def served(serve: Serve, table: Table, path: Path) -> Served:
    return await serve(authenticator=table, audit_log=path)


@pytest.fixture
async def api(served: Served, http: aiohttp.ClientSession) -> Api:
    return Api(served, http)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_each_operation_is_written_or_known_to_need_no_entry(served: Served) -> None:
    audited = set()
    for route in served.app[DESCRIPTION]._routes:
        code = inspect.getsource(route.handler)
        if re.search(r"\.acting\(|audit\.act\(|_guard\.who\(|\._rename\(", code):
            audited.add(route.id)
    changing = {route.id for route in served.app[DESCRIPTION]._routes if route.method != "GET"}
    assert audited == changing - UNAUDITED | READS


async def test_what_is_done_is_in_the_file_and_in_the_answer(
    served: Served,
    api: Api,
    http: aiohttp.ClientSession,
    client: Client,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "collab.audit")
    for name in ("a", "b"):
        assert (await api("POST", "documents", {"name": name}))[0] == 201
    ada = await client("ada")
    headers = {"Content-Type": "application/octet-stream"}
    params, edit = {"wait": "committed"}, text_update(7, "secret words")
    assert (await api("POST", "updates/a", data=edit, user="ada", headers=headers, params=params))[0] == 200
    assert (await api("POST", "reset/a", {}))[0] == 200
    same = {"X-Request-ID": "8f3" * 200}
    assert (await api("PATCH", "documents/b", {"name": "c\u2028d"}, headers=same))[0] == 200
    assert (await api("DELETE", "documents/c\u2028d"))[0] == 204
    assert (await api("DELETE", "documents/nothing"))[0] == 404
    assert (await api("DELETE", "documents/a", user="ada"))[0] == 403
    assert (await api("POST", "trash/c\u2028d", {}))[0] == 200
    assert (await api("POST", "control", {"action": "kick", "user": "ada"}))[0] == 200
    await ada.expect_close()
    url = f"{served.url}/streams/docs/a"
    async with http.delete(url, headers={"Authorization": "Bearer root"}) as answer:
        assert answer.status == 204
    for _ in range(3):
        assert (await api("GET", "connections"))[0] == 200

    writer = served.app[HUB].audit.writer
    assert writer is not None
    await happens(lambda: writer.waiting == 0, "all is written")
    found = [
        (one["event.action"], one["event.outcome"], one.get("user.id"), one.get("collab.document"), one["message"])
        for one in lines(path)
    ]
    node = served.app[HUB].membership.name
    assert found == [
        ("audit-begun", "success", None, None, "a server has begun to write into the file"),
        ("sign-in", "success", "ada", "a", "write access"),
        ("document-reset", "success", "root", "a", "number 1"),
        ("document-renamed", "success", "root", "b", r"to 'c\u2028d'"),
        ("document-deleted", "success", "root", "c\u2028d", "a document was deleted"),
        ("document-deleted", "failure", "root", "nothing", found[5][4]),
        ("permission-refused", "failure", None, "a", "admin access is needed"),
        ("document-restored", "success", "root", "c\u2028d", "a document was taken out of the trash"),
        ("kick", "success", "root", None, "kick, user 'ada'"),
        (
            *("instruction-followed", "success", None, None),
            "kick, user 'ada': 1 sessions ended here, 0 with another access, 0 not decided",
        ),
        ("document-deleted", "success", "root", "a", "a document was deleted"),
        ("connections-listed", "success", "root", None, "connections were listed, with their users and addresses"),
    ]
    written = lines(path)
    assert "secret words" not in str(written) and not caplog.messages, "they are kept apart"
    assert written[1]["collab.connection"] == 1 and written[1]["collab.protocol"] == "y-websocket"
    assert len(written[3]["http.request.id"]) == 300
    assert written[8]["user.target.id"] == "ada" and written[8]["client.address"] == "127.0.0.1"
    assert written[10]["collab.protocol"] == "streams"
    assert {one["service.node.name"] for one in written} == {node}

    status, page = await api("GET", "audit", params={"limit": "5"})
    assert status == 200 and page["silent"] == []
    entries, following = page["entries"], page["next"]
    while following is not None:
        _, page = await api("GET", "audit", params={"limit": "5", "cursor": following})
        entries, following = entries + page["entries"], page["next"]
    told = [(one["kind"], one["outcome"], one["user"], one["document"]) for one in reversed(entries)]
    assert told == [one[:4] for one in found]
    sign_in = next(one for one in entries if one["kind"] == "sign-in")
    assert sign_in["connection"] == f"{node}-1" and sign_in["protocol"] == "y-websocket" and sign_in["node"] == node

    async def kinds(**params: str) -> list[str]:
        status, page = await api("GET", "audit", params=params)
        assert status == 200, page
        return [one["kind"] for one in page["entries"]]

    assert await kinds(user="ada") == ["instruction-followed", "kick", "sign-in"]
    assert await kinds(document="a", kind="actions") == ["document-deleted", "document-reset"]
    assert await kinds(since="2999-01-01T00:00:00Z") == []
    assert await kinds(kind="audit-read") == ["audit-read"], "one a minute of each user"


async def test_who_may_not_see_it_and_what_is_no_question(api: Api, table: Table) -> None:
    table.rights["owner", "a"] = Access.ADMIN
    assert (await api("GET", "audit", user="owner"))[0] == 403
    assert (await api("GET", "audit", user=""))[0] == 401
    for params in (
        *({"kind": "document"}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"}, {"since": "0.5"}),
        *({"cursor": "x"}, {"cursor": "YTEgMiAz" * 200}, {"colour": "red"}, {"cursor": "YW5hbiAxIG5vZGU"}),
    ):
        assert (await api("GET", "audit", params=params))[0] == 400, params


async def test_sign_ins_are_left_out_where_that_is_wanted(
    serve: Serve, table: Table, path: Path, http: aiohttp.ClientSession
) -> None:
    served = await serve(authenticator=table, audit_log=path, audit_sign_ins=False)
    async with http.ws_connect(served.ws("a") + "?token=ada") as socket:
        await socket.receive()
    writer = served.app[HUB].audit.writer
    assert writer is not None
    await happens(lambda: writer.waiting == 0, "all is written")
    assert [one["event.action"] for one in lines(path)] == ["audit-begun"]
