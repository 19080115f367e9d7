"""The pytest plugin, in the test runs of others: processes of their own, with their own settings of pytest."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from collab.errors import ConfigurationError
from collab.testing.server import CollabServer, make_settings

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *plugins: str, ini: str = "") -> pytest.RunResult:
    """Run the tests that ``pytester`` has; a warning is an error, as in many projects."""
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\nfilterwarnings = ['error']\n{ini}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    wanted = [word for plugin in ("collab.testing.plugin", *plugins) for word in ("-p", plugin)]
    return pytester.runpytest_subprocess(*wanted, "-q")


SYNCHRONOUS = """
    import json
    import urllib.error
    import urllib.request

    import pytest


    def create(server, token=None):
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(f"{server.url}/api/v1/documents/notes", b"{}", headers, method="PUT")
        with urllib.request.urlopen(request) as answer:
            return answer.status


    @pytest.mark.parametrize("attempt", [1, 2])
    def test_each_test_has_documents_of_its_own(collab_server, attempt):
        with urllib.request.urlopen(f"{collab_server.url}/api/v1/documents") as answer:
            assert json.load(answer)["documents"] == []
        assert create(collab_server) == 201


    def test_a_test_that_makes_tokens_has_a_server_that_wants_one(collab_server, collab_token):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            create(collab_server)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            create(collab_server, collab_token("bob", {"notes": "read"}, name="Bob"))
        with pytest.raises(urllib.error.HTTPError, match="401"):
            create(collab_server, collab_token(seconds=-60))
        assert create(collab_server, collab_server.token("ada")) == 201


    def test_a_client_without_asyncio_has_a_token_where_one_is_wanted(collab_client, collab_token):
        with collab_client.sync("notes") as document:
            document.replace_text("content", "hello")
        with collab_client.sync("notes", token=collab_token("bob", {"notes": "read"})) as document:
            assert document.read_text("content") == "hello"


    @pytest.mark.collab(max_stateless_bytes=7)
    class TestOptions:
        @pytest.mark.collab(idle_seconds=3)
        def test_the_nearest_wins(self, collab_settings):
            assert (collab_settings.stateless, collab_settings.max_stateless_bytes) == ("off", 7)
            assert collab_settings.idle_seconds == 3


    class TestOwn:
        @pytest.fixture
        def collab_authenticator(self):
            from collab.auth.access import Grant
            from collab.protocol.session import Access

            async def authenticate(request):
                return Grant(Access.READ, request.token, request.token)

            return authenticate

        def test_an_authenticator_of_the_application(self, collab_server):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                create(collab_server, "session-17")
"""

_SCOPE = "asyncio_default_fixture_loop_scope = 'function'"
STRICT = f"asyncio_mode = 'strict'\n{_SCOPE}"
AUTO = f"asyncio_mode = 'auto'\n{_SCOPE}"

ASYNCHRONOUS = """
    import aiohttp
    import pytest


    {mark}
    async def test_a_client_of_the_server(collab_client):
        async with collab_client("notes") as document:
            document.replace_text("content", "hello")
            await document.wait_saved()
            async with collab_client("notes") as other:
                assert other.read_text("content") == "hello"


    {mark}
    async def test_the_server_is_on_a_loop_of_its_own(collab_server):
        async with aiohttp.ClientSession() as http:
            async with http.ws_connect(f"{{collab_server.ws_url}}/notes") as socket:
                assert (await socket.receive()).type is aiohttp.WSMsgType.BINARY


    {mark}
    async def test_the_application_is_mounted(collab_app):
        from aiohttp import web
        from aiohttp.test_utils import TestClient, TestServer

        app = web.Application()
        app.add_subapp("/collab/", collab_app)
        async with TestClient(TestServer(app)) as client:
            assert (await client.get("/collab/readyz")).status == 200
"""


WRONG = """
    import pytest

    @pytest.mark.collab(prot=1)
    def test_unknown(collab_server):
        pass

    @pytest.mark.collab(port=1)
    def test_chosen(collab_app):
        pass

    @pytest.mark.collab("stateless")
    def test_position(collab_app):
        pass

    def test_late(request):
        request.getfixturevalue("collab_token")()
"""


@pytest.mark.slow
def test_it_serves_synchronous_tests_and_those_of_asyncio_in_strict_mode_and_of_anyio(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        test_synchronous=SYNCHRONOUS,
        test_wrong=WRONG,
        test_strict=ASYNCHRONOUS.format(mark="@pytest.mark.asyncio"),
        test_anyio=ASYNCHRONOUS.format(mark="@pytest.mark.anyio").replace(
            "import pytest\n",
            'import pytest\n\n\n    @pytest.fixture\n    def anyio_backend():\n        return "asyncio"\n',
            1,
        ),
    )
    result = run(pytester, monkeypatch, "asyncio", "anyio", ini=f"{STRICT}\ncollab_settings = ['stateless = off']")
    result.assert_outcomes(passed=12, errors=3, failed=1)
    # What is wrong is said in one line.
    result.stdout.fnmatch_lines_random(
        [
            "*the marker collab or the ini option collab_settings: unknown option 'prot'; did you mean port?",
            "*port has no meaning here: the server listens on 127.0.0.1, on a free port",
            "*the marker collab takes options by name, as in collab(stateless='off')",
            "*a token needs a secret to be signed with: set jwt_secret",
        ]
    )


@pytest.mark.slow
def test_it_serves_tests_of_asyncio_in_automatic_mode(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(ASYNCHRONOUS.format(mark=""))
    run(pytester, monkeypatch, "asyncio", ini=AUTO).assert_outcomes(passed=3)


def test_tests_that_ask_for_nothing_load_nothing_of_the_server() -> None:
    """Else every run of pytest in an environment with the package would pay for it."""
    code = "import sys, collab.testing.plugin\nprint(*[name for name in sys.modules if name.startswith('collab')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["collab", "collab.testing", "collab.testing.plugin"]


# Without pytest


def status(url: str) -> int:
    with urllib.request.urlopen(url) as answer:
        return int(answer.status)


def test_a_server_that_is_started_again_has_its_port_and_its_documents() -> None:
    with CollabServer(make_settings({"sandbox_processes": 1})) as server:
        address, content = server.url, f"{server.url}/api/v1/documents/notes"
        new = urllib.request.Request(content, b"{}", {"Content-Type": "application/json"}, method="PUT")
        urllib.request.urlopen(new).close()
        with pytest.raises(RuntimeError, match="the server runs"):
            server.start()
        server.stop()
        server.stop()
        with pytest.raises(urllib.error.URLError, match="refused"):
            status(content)
        server.start()
        assert server.url == address and status(content) == 200
    assert not [thread for thread in threading.enumerate() if thread.name == "collab server"]


def test_a_server_that_cannot_start_says_why_where_it_was_started(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = CollabServer(make_settings({"jwt_secret": "short"}))
    with pytest.raises(ConfigurationError, match="secret"):
        server.start()
    server.stop()


def test_a_server_may_have_a_database(tmp_path: Path) -> None:
    with CollabServer(make_settings({"data_dir": tmp_path})) as server:
        assert status(f"{server.url}/readyz") == 200
    assert (tmp_path / "collab.db").exists()


@pytest.mark.parametrize("documents", [{"notes": "own"}, {"": "read"}])
def test_a_token_that_no_server_would_take_is_not_made(documents: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="documents"):
        CollabServer(make_settings({"jwt_secret": "s" * 32})).token("ada", documents)  # type: ignore[arg-type]
