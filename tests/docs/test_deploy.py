"""The files of `docs/deploy/`, which people copy: each checked by its own tool, and against the server's options."""

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

from collab.app import OTHER_FILES
from collab.settings import Settings
from collab.transports.http.metrics_list import METRICS
from tests.support.image import stages
from tests.support.server import ServerProcess
from tests.support.snippets import ROOT, snippet
from tests.support.tools import tool

DEPLOY = ROOT / "docs" / "deploy"

SECRETS = {"COLLAB_DATABASE_URL": "postgresql://nowhere/none", "COLLAB_JWT_SECRET": "more than thirty-two bytes of it"}


def flags(arguments: list[str]) -> dict[str, object]:
    """Read a command line in which each flag is a switch or has one value."""
    found: dict[str, object] = {}
    words = iter(arguments)
    for word in words:
        name = word.removeprefix("--").replace("-", "_")
        found[name] = True if name in ("migrate", "behind_proxy") else next(words)
    return found


# Kubernetes


def manifest() -> dict[str, dict[str, Any]]:
    parts = (yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "kubernetes" / "base").glob("*.yaml")))
    return {part["kind"]: part for part in parts}


def built(directory: str) -> dict[str, dict[str, Any]]:
    """Let kubectl build a directory, as ``kubectl apply -k`` does."""
    command = [tool("kubectl"), "kustomize", str(DEPLOY / "kubernetes" / directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return {part["kind"]: part for part in yaml.safe_load_all(done.stdout)}


def test_kubernetes_takes_the_manifests() -> None:
    parts = manifest()
    parts.pop("Kustomization")
    assert parts.keys() == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    for part in parts.values():
        for version in ("1.30", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(part, version, strict=True)


@pytest.mark.image
@pytest.mark.slow
def test_kustomize_builds_them() -> None:
    plain = built("base")
    (container,) = plain["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/collab:0.1.0"
    by_connections = built("connections")
    for part in (*plain.values(), *by_connections.values()):
        kubernetes_validate.validate(part, kubernetes_validate.latest_version(), strict=True)
    resource, pods = by_connections.pop("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert plain.pop("HorizontalPodAutoscaler")["spec"]["metrics"] == [resource]
    assert plain == by_connections
    rules = yaml.safe_load((DEPLOY / "kubernetes" / "connections" / "adapter-values.yaml").read_text())
    (rule,) = rules["rules"]["custom"]
    name = pods["pods"]["metric"]["name"]
    assert name == rule["name"]["as"] and rule["seriesQuery"].startswith(f"{name}{{")
    # A gauge of the server, by protocol, which the rule adds up.
    assert name in {metric.name for metric in METRICS}
    assert int(pods["pods"]["target"]["averageValue"]) < Settings().max_connections


def test_the_parts_fit_together_and_to_the_options_and_the_image() -> None:
    parts = manifest()
    deployment = parts["Deployment"]["spec"]
    labels, pod = deployment["template"]["metadata"]["labels"], deployment["template"]["spec"]
    assert deployment["selector"]["matchLabels"] == labels
    assert parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert parts["Service"]["spec"]["selector"] == labels
    scaling = parts["HorizontalPodAutoscaler"]["spec"]
    assert scaling["scaleTargetRef"]["name"] == parts["Deployment"]["metadata"]["name"]
    assert "replicas" not in deployment, "each apply would undo what the autoscaler has done"
    assert parts["PodDisruptionBudget"]["spec"]["maxUnavailable"] < scaling["minReplicas"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (service,) = parts["Service"]["spec"]["ports"]
    probes = [container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert {service["targetPort"], *(probe["port"] for probe in probes)} == {"http"}
    assert {variable["name"] for variable in container["env"]} == SECRETS.keys()
    settings = Settings.load(flags(container["args"][1:]), environ=SECRETS)
    settings.check_exposure(True)
    assert (settings.port, settings.metrics_port) == (ports["http"], ports["metrics"])
    assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds
    assert container["readinessProbe"]["periodSeconds"] < settings.drain_delay_seconds
    *_, image = stages((ROOT / "Dockerfile").read_text())
    user, _, group = image.texts("USER")[-1].partition(":")
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (int(user), int(group))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("pod", "runAsNonRoot"), True),
        (("pod", "seccompProfile"), {"type": "RuntimeDefault"}),
        (("container", "allowPrivilegeEscalation"), False),
        (("container", "readOnlyRootFilesystem"), True),
        (("container", "capabilities"), {"drop": ["ALL"]}),
    ],
)
def test_the_pod_is_what_the_restricted_standard_wants(place: tuple[str, str], value: object) -> None:
    pod = manifest()["Deployment"]["spec"]["template"]["spec"]
    context = {"pod": pod["securityContext"], "container": pod["containers"][0]["securityContext"]}
    assert context[place[0]][place[1]] == value


@pytest.mark.postgres
@pytest.mark.server
@pytest.mark.slow
def test_the_container_starts_and_its_probes_are_answered(tmp_path: Path, empty_postgres_url: str) -> None:
    pod = manifest()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command, *arguments = container["args"]
    assert command == "serve" and "command" not in container
    arguments = [*arguments, "--metrics-port", "0"]  # the last one counts
    with ServerProcess(
        tmp_path, *arguments, database_url=empty_postgres_url, environment={"COLLAB_JWT_SECRET": "s" * 32}
    ) as server:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            url = f"http://127.0.0.1:{server.port}{container[probe]['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=30) as response:
                assert response.status == 200


# systemd


UNIT = DEPLOY / "systemd" / "collab@.service"


def unit() -> dict[str, dict[str, str]]:
    # Of a key that stands there twice the last one counts here; nothing below looks at one.
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return {name: dict(parser[name]) for name in parser.sections()}


def analyze(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not here")
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"}
    return subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    own = tmp_path / "collab"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert "/opt/collab/bin/collab" in UNIT.read_text()
    file = tmp_path / "collab@.service"
    file.write_text(UNIT.read_text().replace("/opt/collab/bin/collab", str(own)))
    file.with_name("collab@1234.service").symlink_to(file)
    verify = ("verify", "--man=no", "--recursive-errors=no", str(tmp_path / "collab@1234.service"))
    done = analyze(tmp_path, *verify)
    assert done.returncode == 0 and "collab@" not in done.stderr, done.stderr
    # What it would say of a line that it does not know.
    file.write_text(file.read_text().replace("KillMode=mixed", "KillMood=mixed"))
    assert "KillMood" in analyze(tmp_path, *verify).stderr


def test_the_unit_lets_the_server_do_little(tmp_path: Path) -> None:
    """The exposure that systemd computes, from 0 to 10: 9.6 for a unit that says nothing."""
    (tmp_path / "collab@1234.service").write_text(UNIT.read_text())
    done = analyze(tmp_path, "security", "--offline=true", "--threshold=20", str(tmp_path / "collab@1234.service"))
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= 1.8 and done.returncode == 0, done.stdout


def test_the_unit_fits_to_the_options() -> None:
    service = unit()["Service"]
    path, command, *arguments = service["ExecStart"].split()
    assert (path, command) == ("/opt/collab/bin/collab", "serve")
    settings = Settings.load(flags([word.replace("%i", "1234") for word in arguments]), environ=SECRETS)
    settings.check_exposure(True)
    assert settings.port == 1234
    assert int(service["TimeoutStopSec"]) > settings.drain_seconds
    assert int(service["LimitNOFILE"]) >= settings.max_connections + OTHER_FILES
    # /proc/meminfo, by which the marks for memory are set, is not hidden.
    assert service["Type"] == "notify" and "ProcSubset" not in service


# Compose


COMPOSE = DEPLOY / "compose"


def compose(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [tool("docker-compose"), "--file", str(directory / "compose.yaml"), "config", "--format", "json"]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, timeout=60, check=False, cwd=directory
    )


@pytest.mark.image
@pytest.mark.slow
def test_compose_takes_the_file_and_asks_for_the_name_of_the_site() -> None:
    done = compose(COMPOSE, COLLAB_SITE="collab.example")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services["server"]["build"]["context"] == str(ROOT)
    assert (ROOT / services["server"]["build"]["dockerfile"]).is_file()
    # Only the proxy is reached from outside.
    assert [name for name, service in services.items() if service.get("ports")] == ["proxy"]
    for environment in ({}, {"COLLAB_SITE": ""}):
        without = compose(COMPOSE, **environment)
        assert without.returncode != 0 and "COLLAB_SITE is missing a value" in without.stderr


def test_the_services_have_no_password_of_their_own_and_fit_to_the_options(tmp_path: Path) -> None:
    parts = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    server, database = parts["services"]["server"], parts["services"]["database"]
    assert "POSTGRES_PASSWORD" not in database["environment"] and "HOST_AUTH" not in str(database)
    files = {name: COMPOSE / secret["file"] for name, secret in parts["secrets"].items()}
    assert files.keys() == {*server["secrets"], *database["secrets"]}
    assert not any(path.exists() for path in files.values())
    command, *arguments = server["command"]
    assert command == "serve"
    *_, image = stages((ROOT / "Dockerfile").read_text())
    config = tmp_path / "collab.toml"
    config.write_text(f'database_url = "postgresql://collab:p@database/collab"\njwt_secret = "{"s" * 32}"\n')
    settings = Settings.load(flags(arguments), str(config), environ=image.environment)
    settings.check_exposure(True)
    assert settings.trusted_proxies == (parts["networks"]["front"]["ipam"]["config"][0]["subnet"],)
    assert int(server["stop_grace_period"].removesuffix("s")) > settings.drain_seconds
    assert server["ulimits"]["nofile"] >= settings.max_connections + OTHER_FILES
    user = image.texts("USER")[-1].replace(":", ",gid=")
    assert server["read_only"] is True and server["tmpfs"] == [f"/data:mode=0700,uid={user}"]


def test_the_proxy_of_compose_is_that_of_the_handbook() -> None:
    block = snippet("docs/operations.md", "Caddy", "caddyfile")
    own = block.replace("collab.example", "{$COLLAB_SITE}").replace("10.0.0.5:1234", "server:1234")
    assert (COMPOSE / "Caddyfile").read_text().endswith(own)
