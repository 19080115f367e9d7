"""Prometheus and its promtool, of Debian's package ``prometheus``."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.support.needs import demand


class PrometheusFailed(AssertionError):
    """A program is missing, or has found a fault; says what to do, or what it has said."""


def find_program(name: str) -> str:
    """Give the path of ``prometheus`` or ``promtool``."""
    demand("prometheus")
    found = shutil.which(name)
    if found is None:
        raise PrometheusFailed(f"this test needs {name}; install it with: apt install prometheus")
    return found


def promtool(*arguments: str, directory: Path) -> str:
    """Run promtool in a directory and give what it has said."""
    command = [find_program("promtool"), *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise PrometheusFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def prometheus(directory: Path, targets: Sequence[str], rules: Path) -> Iterator[str]:
    """Run Prometheus, which reads ``targets`` every second and knows ``rules``; give its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules.resolve())],
        "scrape_configs": [{"job_name": "collab", "static_configs": [{"targets": list(targets)}]}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [
        find_program("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "prometheus.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()
