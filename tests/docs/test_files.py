"""The files and lines of logs that the documents show: parsed, and compared with what the server does."""

from __future__ import annotations

import json
import logging
import re
import tomllib
import urllib.request
from pathlib import Path

import jwt
import pytest
import yaml

from collab.audit import Audit, Kind, Outcome, Who
from collab.audit.entries import encode_entry, make_entry
from collab.auth.access import AccessRequest
from collab.auth.factory import AuthOptions, make_authenticator
from collab.errors import SchemaError, Unauthenticated
from collab.settings import Settings
from collab.storage import migrate
from collab.telemetry import JsonFormatter
from tests.auth.makers import NOW, Clock
from tests.support.server import ServerProcess
from tests.support.snippets import snippet


def test_the_file_of_options_is_read(tmp_path: Path) -> None:
    text = snippet("docs/configuration.md", "A file", "toml")
    (tmp_path / "collab.toml").write_text(text)
    settings = Settings.load(config=tmp_path / "collab.toml", environ={})
    options = tomllib.loads(text)
    assert {name: getattr(settings, name) for name in options} == options


@pytest.mark.server
def test_the_container_of_kubernetes_starts_and_its_probes_are_answered(tmp_path: Path) -> None:
    spec = yaml.safe_load(snippet("docs/operations.md", "Kubernetes", "yaml"))["spec"]
    (container,) = spec["containers"]
    command, *arguments = container["args"]
    assert command == "serve"
    variables = {one["name"]: "a secret of more than thirty-two bytes" for one in container["env"]}
    assert spec["enableServiceLinks"] is False
    settings = Settings.load(environ=variables)
    assert spec["terminationGracePeriodSeconds"] > settings.drain_seconds
    ports = {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")}
    assert ports == {settings.port}
    with ServerProcess(tmp_path, *arguments, environment=variables) as server:
        for probe in ("readinessProbe", "livenessProbe"):
            url = f"http://127.0.0.1:{server.port}{container[probe]['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=30) as response:
                assert response.status == 200


def test_prometheus_is_pointed_at_a_port_that_there_is() -> None:
    text = snippet("docs/operations.md", "Metrics", "yaml")
    own, main = yaml.safe_load(text)["scrape_configs"]
    options = re.search(r"collab serve (.*)$", text, re.MULTILINE)
    assert options is not None
    host, port = re.findall(r"--metrics-(?:host|port) (\S+)", options[1])
    settings = Settings.load(environ={"COLLAB_METRICS_HOST": host, "COLLAB_METRICS_PORT": port})
    assert own["static_configs"][0]["targets"] == [f"10.0.0.5:{settings.metrics_port}"]
    assert main["scheme"] == "https" and "credentials_file" in main["authorization"]


def test_a_line_of_the_log_in_json_is_as_it_is_written() -> None:
    shown = json.loads(snippet("docs/operations.md", "Log lines", "json"))
    level = shown["log.level"].upper()
    values = {"name": shown["log.logger"], "levelno": logging.INFO, "levelname": level, "msg": shown["message"]}
    own = {"connection": shown["collab.connection"], "peer": shown["client.address"], "user": shown["user.id"]}
    own |= {"document_name": shown["collab.document"], "process": shown["process.pid"], "created": 1777886047.3125}
    record = logging.makeLogRecord({**values, **own})
    assert json.loads(JsonFormatter(node=shown["service.node.name"]).format(record)) == shown


def test_an_entry_in_the_file_of_the_audit_is_as_it_is_written() -> None:
    shown = json.loads(snippet("docs/operations.md", "The audit log", "json"))
    who = Who(shown["user.id"], shown["client.address"], shown["collab.protocol"])
    facts = (Kind(shown["event.action"]), Outcome(shown["event.outcome"]), shown["message"], who)
    entry = make_entry(1777886047.3125, 1, *facts, target=shown["user.target.id"])
    assert json.loads(encode_entry(entry, shown["service.node.name"])) | {"process.pid": 4711} == shown


REFUSED = {
    "sign-in refused": Kind.SIGN_IN_REFUSED,
    "permission refused": Kind.PERMISSION_REFUSED,
    "limit": Kind.LIMIT,
}


def test_lines_of_the_audit_log_are_as_they_are_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    lines = snippet("docs/operations.md", "The audit log", "").splitlines()
    audit = Audit()
    line = re.compile(r"([\w -]+): (.*) \(address=(\S+)(?: user='(\w+)')?(?: document='(\S+)')?(?: protocol=(\w+))?\)")
    for text in lines:
        found = line.fullmatch(text)
        assert found is not None, text
        kind, reason, address, user, document, protocol = found.groups()
        audit.write(REFUSED[kind], reason, reason, Who(user, address, protocol), document)
    assert [record.getMessage() for record in caplog.records] == lines


async def test_a_token_of_both_secrets_is_taken_while_keys_are_changed(tmp_path: Path) -> None:
    text = snippet("docs/security.md", "Keys", "json")
    (tmp_path / "keys.json").write_text(text)
    made = make_authenticator(AuthOptions(jwks_file=tmp_path / "keys.json"), clock=Clock())
    assert made is not None
    for key in json.loads(text)["keys"]:
        secret = jwt.utils.base64url_decode(key["k"])
        token = jwt.encode({"sub": "17", "documents": {"*": "read"}, "exp": NOW + 600}, secret, algorithm="HS256")
        assert (await made.authenticate(AccessRequest(token, "plan", "127.0.0.1"))).user == "17"
    with pytest.raises(Unauthenticated):
        await made.authenticate(AccessRequest(token[:-8] + "AAAAAAAA", "plan", "127.0.0.1"))


def test_the_refusal_of_a_newer_database_is_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = snippet("docs/operations.md", "Upgrading", "").removesuffix("\n")
    number, release, ours = re.findall(r"schema (\d+), .* from (\S+) on .* schema (\d+):", shown)[0]
    monkeypatch.setattr(migrate, "SCHEMA", int(ours))
    with pytest.raises(SchemaError) as refused:
        migrate.require_usable(migrate.Schema(number=int(number), oldest=int(number), release=release))
    assert f"collab: {refused.value}" == shown
