"""What a test needs beyond Python itself, as markers; and the large and the small size of a test.

Strategy: nobody has to remember a marker. The markers of a test follow from the fixtures that it uses, from its
parameters and from its folder (`needs_of`); only a test that starts something by its own hands carries the
marker itself. A test with no need gets the marker ``fast``, which is what ``make check`` runs. The helpers that
start something ask first (`demand`): a test that starts Node, PostgreSQL, Chromium or a server without saying
so fails, in every run, and the message names the marker.

What a test costs is measured, not guessed: ``long.txt`` beside this file names those that ``make check`` has no time
for, and only ``python -m tests.support.weigh`` writes it. Those of the folders `WHOLE` are never among them.

A property test takes its number of examples from `size`: many in ``make test``, few under ``--small`` (``make check``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

FAST = "fast"
LONG = "long"

WHOLE = frozenset({"engine", "protocol", "update", "simulation"})
"""The folders of which ``make check`` runs every fast test, whatever it costs."""

LIST = Path(__file__).with_name("long.txt")
"""The functions that are `LONG`, a line each: the path below ``tests/``, and the name."""

NEEDS: Mapping[str, str] = {
    "node": "starts Node, with npm packages of the lock files below tests/",
    "browser": "starts Chromium",
    "page": "reads the built page, web_demo/dist",
    "postgres": "starts PostgreSQL",
    "valkey": "starts Valkey",
    "server": "starts the server or its command line as a process of its own",
    "proxy": "starts a reverse proxy (nginx, HAProxy, Apache, Caddy, Traefik)",
    "image": "runs bubblewrap, hadolint, docker-compose or kubectl, for what is deployed",
    "prometheus": "runs Prometheus or its promtool",
    "network": "installs Python packages from an index",
    "slow": "takes more than about a second",
    LONG: "takes more of the time of make check than it has for one test; measured, see tests/support/weigh.py",
}
"""The markers, and what each says of a test."""

_OF_FIXTURES: Mapping[str, str] = {
    "agent_of": "node",
    "any_project": "server",
    "browser": "browser",
    "built_page": "page",
    "hocuspocus": "node",
    "installed": "network",
    "installed_peer": "node",
    "migrated_project": "server",
    "page_is_built": "page",
    "postgres_server": "postgres",
    "private_postgres": "postgres",
    "project": "server",
    "started_project": "server",
    "server": "server",
    "tls_server": "server",
    "valkey": "valkey",
    "valkey_cluster": "valkey",
    "valkey_sentinel": "valkey",
}

_OF_FOLDERS: Mapping[str, frozenset[str]] = {
    "browser": frozenset({"browser", "page", "server"}),
    "crash": frozenset({"node", "server"}),
    "hostile": frozenset({"server"}),
    "interop": frozenset({"node", "server"}),
}

_OF_PARAMETERS: Mapping[str, str] = {"postgresql": "postgres"}

_held: frozenset[str] | None = None
_small = False


def needs_of(folder: str, fixtures: Iterable[str], parameters: Iterable[object]) -> frozenset[str]:
    """Return the needs of a test that follow from where it lies and what it uses.

    ``folder`` is the first part of its path below ``tests/``.
    """
    found = set(_OF_FOLDERS.get(folder, ()))
    found.update(need for name, need in _OF_FIXTURES.items() if name in fixtures)
    found.update(_OF_PARAMETERS[value] for value in parameters if isinstance(value, str) and value in _OF_PARAMETERS)
    return frozenset(found)


@cache
def long_tests() -> frozenset[str]:
    """Return the functions that are `LONG`, as `function_of` names them."""
    return frozenset(line for line in LIST.read_text().splitlines() if line and not line.startswith("#"))


def function_of(nodeid: str) -> str:
    """Return which function a test is a case of, from its id: ``hub/test_room.py::test_x``."""
    return nodeid.partition("[")[0].removeprefix("tests/")


def hold(needs: frozenset[str] | None) -> None:
    """Note the needs of the test that runs now; None outside of tests, where anything may be started."""
    global _held
    _held = needs


def demand(need: str) -> None:
    """Raise AssertionError if the test that runs now has not said that it has this need."""
    if _held is not None and need not in _held:
        raise AssertionError(f"this test {NEEDS[need]} and does not say so; mark it: @pytest.mark.{need}")


def choose_small(small: bool) -> None:
    """Choose the sizes that `size` gives from now on; before the modules of tests are imported."""
    global _small
    _small = small


def size(large: int, *, small: int) -> int:
    """Give how many examples, seeds or rounds a test takes: ``small`` under ``--small``, else ``large``."""
    return small if _small else large
