"""A real Chromium, and windows in it that are judged when the test is over."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from collab.transports.http.static import find_web_root
from tests.auth.makers import SECRET
from tests.browser.window import Window
from tests.support.needs import demand
from tests.support.server import ServerProcess

# Debian's names first; `playwright install` would download a browser of its own.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
INSTALL_CHROMIUM = "apt-get update && apt-get install -y --no-install-recommends chromium"

# What Playwright switches off, and that this option would switch on again: browsers take the last such option alone.
FEATURES_OFF = (
    "AimEnabled",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
    # Two pages of the address bar, which nobody sees here, for each window: 0.8 s of the processor.
    "WebUIOmniboxAimPopup",
    "WebUIOmniboxPopup",
)

# The browser's own calls home would count as requests to another origin, and /dev/shm is small in containers.
ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    f"--disable-features={','.join(FEATURES_OFF)}",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)

_numbers = itertools.count(1)


class OpenWindow(Protocol):
    """Open a page of ``server`` in a new window, wait until it is connected unless told otherwise.

    ``script`` runs before the page's own; ``beside`` gives the window whose browser storage this one shares.
    """

    def __call__(
        self,
        server: str,
        document: str | None = ...,
        *,
        name: str | None = ...,
        connected: bool = ...,
        path: str = ...,
        query: str = ...,
        script: str | None = ...,
        beside: Window | None = ...,
        **context: Any,
    ) -> Awaitable[Window]: ...


_on_one_loop = pytest.mark.asyncio(loop_scope="session")


# Before pytest-asyncio looks: it makes the loop a parameter of the test, and ends what is on it with that parameter.
@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Keep the loop, and so the browser, from one test to the next."""
    metafunc.definition.add_marker(_on_one_loop, append=False)


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of this directory on one loop and in one process: the browser that they share belongs to it.

    Two browsers at once would be slower than one after the other.
    """
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(_on_one_loop, append=False)
            item.add_marker(pytest.mark.xdist_group("browser"))


def chromium() -> str:
    """Find the browser; a missing one is a failure that names the line to run."""
    demand("browser")
    for name in CHROMIUM:
        if path := shutil.which(name):
            return path
    pytest.fail(f"no Chromium on PATH; install it: {INSTALL_CHROMIUM}", pytrace=False)


@pytest.fixture(scope="session")
def page_is_built() -> None:
    if find_web_root() is None:
        pytest.fail("the page is not built; build it: make web", pytrace=False)


@pytest.fixture(scope="session")
def shared_server(page_is_built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for the tests that never stop it."""
    with ServerProcess(tmp_path_factory.mktemp("browser")) as server:
        yield server


@pytest.fixture(scope="session")
def signed_server(page_is_built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that wants signed tokens by a shared secret, and takes them to the second."""
    directory = tmp_path_factory.mktemp("signed")
    with ServerProcess(directory, "--jwt-leeway-seconds", "0", environment={"COLLAB_JWT_SECRET": SECRET}) as server:
        yield server


@pytest.fixture
def own_server(page_is_built: None, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that the test may stop and start."""
    with ServerProcess(tmp_path) as server:
        yield server


@pytest.fixture
def document() -> str:
    """A document name that no other test uses, with all that an address must carry."""
    return f"browser/{next(_numbers)} ä%2f?#"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_window(browser: Browser) -> AsyncIterator[OpenWindow]:
    windows: list[Window] = []

    async def open_window(
        server: str,
        document: str | None = None,
        *,
        name: str | None = None,
        connected: bool = True,
        path: str = "",
        query: str = "",
        script: str | None = None,
        beside: Window | None = None,
        **context: Any,
    ) -> Window:
        if beside is not None:
            own = beside.context  # another tab of the same person
        else:
            own = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
        if script is not None:
            await own.add_init_script(script)
        if name is not None:
            # Once, so that a later choice on the page outlives a reload.
            keep = f"localStorage.setItem('collab:name', {json.dumps(name)})"
            await own.add_init_script(f"if (localStorage.getItem('collab:name') === null) {keep}")
        window = Window(own, await own.new_page(), server, document, path, query)
        windows.append(window)
        await window.open()
        if connected and document is not None:
            await window.until_connected()
        return window

    yield open_window
    for own in {window.context for window in windows}:
        await own.close()
    for window in windows:
        window.check()


@pytest.fixture
def two_windows(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> Callable[[], Awaitable[tuple[Window, Window]]]:
    """Open one document in two windows, Ada's and Grace's."""

    async def give() -> tuple[Window, Window]:
        ada = await open_window(shared_server.url, document, name="Ada")
        grace = await open_window(shared_server.url, document, name="Grace")
        await ada.until_others("Grace")
        await grace.until_others("Ada")
        return ada, grace

    return give
