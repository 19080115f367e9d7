"""The image that `Dockerfile` describes: its file by the linter, and what it holds by running it in an empty root."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.image import Container, Image, Stage, stages
from tests.support.snippets import ROOT
from tests.support.tools import tool

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("image")]

SECRET = "more than thirty-two bytes of a secret"

BEHIND_PROXY = {
    "COLLAB_JWT_SECRET": SECRET,
    "COLLAB_BEHIND_PROXY": "true",
    "COLLAB_TRUSTED_PROXIES": "127.0.0.1/32",
    "COLLAB_DRAIN_DELAY_SECONDS": "0",
}

LOOK = """
import errno, json, os, pathlib

def cannot_write(path):
    try:
        pathlib.Path(path, "new").write_text("")
    except OSError as error:
        return errno.errorcode[error.errno]

print(json.dumps({
    "ids": [os.getuid(), os.geteuid(), os.getgid()],
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm"))],
    "writing": {path: cannot_write(path) for path in ("/", "/opt/collab", "/opt/collab/lib", "/tmp", "/data")},
    "shells": [path for path in ("/bin/sh", "/usr/bin/sh", "/bin/bash", "/usr/bin/env") if os.path.exists(path)],
    "pip": [path.name for path in pathlib.Path("/opt/collab").rglob("bin/pip*")],
    "uncompiled": [str(path) for path in pathlib.Path("/opt/collab/lib").rglob("collab/*.py")
                   if not pathlib.Path(path.parent, "__pycache__").is_dir()],
    "secrets": sorted(name for name in os.environ if "SECRET" in name or "PASSWORD" in name or "URL" in name),
}))
"""


def parts() -> list[Stage]:
    return stages((ROOT / "Dockerfile").read_text())


@pytest.mark.image
def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    def lint(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([tool("hadolint"), str(path)], capture_output=True, text=True, timeout=60, check=False)

    done = lint(ROOT / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    worse = tmp_path / "Dockerfile"
    worse.write_text("FROM python:latest\nRUN pip install collab-server\n")
    assert "DL3007" in lint(worse).stdout


def test_the_last_stage_is_no_user_of_the_machine_and_names_no_secret() -> None:
    *_, last = parts()
    user, _, group = last.texts("USER")[-1].partition(":")
    assert int(user) > 1000 and int(group) > 1000
    assert not any(
        word in name for name in last.environment for word in ("SECRET", "PASSWORD", "DATABASE_URL", "INSECURE")
    )
    # Nothing is run there, so it has nothing but what the stages before have made.
    assert last.texts("RUN") == [] and all(text.startswith("--from=") for text in last.texts("COPY"))
    assert last.words("HEALTHCHECK")[0] == last.words("ENTRYPOINT")[0] == "collab"


def test_nothing_goes_to_the_builder_that_no_stage_copies() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        word for stage in parts() for text in stage.texts("COPY") if "--from=" not in text for word in text.split()[:-1]
    }
    assert {name.partition("/")[0] for name in copied} == {name.partition("/")[0] for name in allowed}


@pytest.fixture(scope="module")
def built_page() -> Path:
    index = ROOT / "web_demo" / "dist" / "index.html"
    assert index.is_file(), "the page is not built; run: make web"
    return index.parent


@pytest.fixture(scope="module")
def image(built_page: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    made = Image(tmp_path_factory.mktemp("image"), built_page)
    try:
        made.build()
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"the stage fails: {error.stdout}{error.stderr}") from None
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def ask(port: int, method: str, path: str, body: object = None, token: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if "json" in answer.headers.get_content_type() else text.decode()
    finally:
        connection.close()


def until_ready(container: Container, port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            status, _ = ask(port, "GET", "/readyz")
        except OSError:
            status = None
        if status == 200:
            return
        assert container.process.poll() is None, container.end()
        assert time.monotonic() < deadline, "not ready within a minute"
        time.sleep(0.05)


@pytest.mark.image
@pytest.mark.network
@pytest.mark.page
@pytest.mark.server
@pytest.mark.slow
class TestInAnEmptyRoot:
    def test_nobody_can_write_there_and_there_is_no_shell(self, image: Image, tmp_path: Path) -> None:
        with Container(image, tmp_path, ["python", "-c", LOOK], {}) as container:
            code, out, errors = container.end()
        assert code == 0, errors
        found = json.loads(out)
        assert found["ids"] == [10001, 10001, 10001]
        assert set(found["capabilities"]) == {"0" * 16}
        assert found["writing"] == dict.fromkeys(("/", "/opt/collab", "/opt/collab/lib", "/tmp"), "EROFS") | {
            "/data": None
        }
        assert (found["shells"], found["pip"], found["uncompiled"], found["secrets"]) == ([], [], [], [])

    def test_it_does_not_start_without_a_way_to_ask_who_somebody_is(self, image: Image, tmp_path: Path) -> None:
        command = [*image.last.words("ENTRYPOINT"), *image.last.words("CMD")]
        with Container(image, tmp_path, command, {}) as container:
            code, _, errors = container.end()
        assert code == 2
        assert "authentication" in errors, errors

    def test_it_serves_and_keeps_a_document_over_a_restart(
        self, image: Image, built_page: Path, tmp_path: Path
    ) -> None:
        entry = image.last.words("ENTRYPOINT")
        environment = BEHIND_PROXY | {"COLLAB_PORT": str(free_port())}
        port = int(environment["COLLAB_PORT"])

        def once(*command: str) -> tuple[int, str, str]:
            with Container(image, tmp_path, command, environment) as container:
                return container.end()

        code, token, errors = once(*entry, "token", "--user", "ada", "--document", "*=admin")
        assert code == 0, errors
        token = token.strip()
        assert once(*image.last.words("HEALTHCHECK"))[0] == 1, "nobody is there"
        for number in (1, 2):
            with Container(image, tmp_path, [*entry, *image.last.words("CMD")], environment) as container:
                until_ready(container, port)
                code, out, errors = once(*image.last.words("HEALTHCHECK"))
                assert code == 0, out + errors
                status, page = ask(port, "GET", "/")
                assert (status, page) == (200, (built_page / "index.html").read_text(encoding="utf-8"))
                if number == 1:
                    # Content is made and read by a process of the sandbox, which has this root too.
                    content = [{"root": "settings", "format": "json", "value": {"theme": "dark"}}]
                    new = {"name": "notes/plan", "content": content}
                    status, answer = ask(port, "POST", "/api/v1/documents", new, token)
                    assert status == 201, answer
                status, answer = ask(port, "GET", "/api/v1/content/notes/plan?root=settings&format=json", token=token)
                assert (status, answer) == (200, {"theme": "dark"})
                code, out, errors = container.stop()
                assert code == 0, errors
                assert re.search(rf"^collab listening on http://0\.0\.0\.0:{port}$", out, re.MULTILINE), out
                assert "Traceback" not in errors and "ERROR" not in errors, errors
        assert (tmp_path / "collab.db").is_file()
