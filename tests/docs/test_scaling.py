"""The configurations of `docs/scaling.md`, each checked by its own tool and run where that can be done here."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from collab.app import _OTHER_FILES
from collab.settings import Settings
from tests.support.proxies import BALANCERS, Proxy, find_proxy
from tests.support.server import ServerProcess
from tests.support.snippets import snippet
from tests.transports.test_tls import make_certificate

SECRETS = {"COLLAB_DATABASE_URL": "postgresql://nowhere/none", "COLLAB_JWT_SECRET": "more than thirty-two bytes of it"}


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


def manifest() -> dict[str, dict[str, Any]]:
    parts = yaml.safe_load_all(snippet("docs/scaling.md", "Kubernetes", "yaml"))
    return {part["kind"]: part for part in parts}


def test_kubernetes_takes_the_manifest() -> None:
    for part in manifest().values():
        for version in ("1.30", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(part, version, strict=True)


def test_the_parts_of_the_manifest_fit_together_and_to_the_options() -> None:
    parts = manifest()
    deployment = parts["Deployment"]["spec"]
    labels, pod = deployment["template"]["metadata"]["labels"], deployment["template"]["spec"]
    assert deployment["selector"]["matchLabels"] == labels
    assert parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert parts["PodDisruptionBudget"]["spec"]["maxUnavailable"] < deployment["replicas"]
    assert parts["Service"]["spec"]["selector"] == labels
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (service,) = parts["Service"]["spec"]["ports"]
    probes = [container[probe]["httpGet"] for probe in ("readinessProbe", "livenessProbe")]
    assert {service["targetPort"], *(probe["port"] for probe in probes)} == {"http"}
    assert {variable["name"] for variable in container["env"]} == SECRETS.keys()
    settings = Settings.load(flags(container["args"][1:]), environ=SECRETS)
    settings.check_exposure(True)
    assert (settings.port, settings.metrics_port) == (ports["http"], ports["metrics"])
    assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds
    assert container["readinessProbe"]["periodSeconds"] < settings.drain_delay_seconds


def flags(arguments: list[str]) -> dict[str, object]:
    """Read a command line in which each flag is a switch or has one value."""
    found: dict[str, object] = {}
    words = iter(arguments)
    for word in words:
        name = word.removeprefix("--").replace("-", "_")
        found[name] = True if name in ("migrate", "behind_proxy") else next(words)
    return found


@pytest.mark.postgres
@pytest.mark.server
@pytest.mark.slow
def test_the_container_starts_and_its_probes_are_answered(tmp_path: Path, empty_postgres_url: str) -> None:
    pod = manifest()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command, *arguments = container["args"]
    assert (container["command"], command) == (["collab"], "serve")
    arguments = [*arguments, "--metrics-port", "0"]  # the last one counts
    with ServerProcess(
        tmp_path, *arguments, database_url=empty_postgres_url, environment={"COLLAB_JWT_SECRET": "s" * 32}
    ) as server:
        for probe in ("readinessProbe", "livenessProbe"):
            url = f"http://127.0.0.1:{server.port}{container[probe]['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=30) as response:
                assert response.status == 200


def unit() -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(snippet("docs/scaling.md", "systemd", "ini"))
    return {name: dict(parser[name]) for name in parser.sections()}


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not here")
    own = tmp_path / "collab"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    text = snippet("docs/scaling.md", "systemd", "ini")
    assert "/opt/collab/bin/collab" in text
    file = tmp_path / "collab@.service"
    file.write_text(text.replace("/opt/collab/bin/collab", str(own)))

    def verify() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
        return subprocess.run(
            [program, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "collab@1234.service")],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    file.with_name("collab@1234.service").symlink_to(file)
    done = verify()
    assert done.returncode == 0 and "collab@" not in done.stderr, done.stderr
    # What it would say of a line that it does not know.
    file.write_text(file.read_text().replace("KillMode=mixed", "KillMood=mixed"))
    assert "KillMood" in verify().stderr


def test_the_unit_fits_to_the_options() -> None:
    service = unit()["Service"]
    path, command, *arguments = service["ExecStart"].split()
    assert (path, command) == ("/opt/collab/bin/collab", "serve")
    settings = Settings.load(flags([word.replace("%i", "1234") for word in arguments]), environ=SECRETS)
    settings.check_exposure(True)
    assert settings.port == 1234
    assert int(service["TimeoutStopSec"]) > settings.drain_seconds
    assert int(service["LimitNOFILE"]) >= settings.max_connections + _OTHER_FILES
    assert re.search("COLLAB_DATABASE_URL, COLLAB_JWT_SECRET", snippet("docs/scaling.md", "systemd", "ini"))
