"""The load balancers of `docs/scaling.md`, each checked by its own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.proxies import BALANCERS, Proxy, find_proxy
from tests.transports.test_tls import make_certificate


@pytest.mark.proxy
@pytest.mark.parametrize(("name", "option"), [("nginx", "-t"), ("haproxy", "-c")])
def test_a_load_balancer_takes_its_block(name: str, option: str, tmp_path: Path) -> None:
    proxy = Proxy(BALANCERS[name], tmp_path, (1, 2, 3), certificate=make_certificate(tmp_path, "site"))
    command = [*proxy.kind.command(find_proxy(proxy.kind), tmp_path), option]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    # A hash of the path is for the documents of /ws alone.
    assert proxy.kind.block.count("10.0.0.5:1234") == 2 and "/ws/" in proxy.kind.block
