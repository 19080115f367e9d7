"""The lines of `docs/deployment.md`, each done as far as it can be without an engine of containers or a cluster."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from collab.settings import Settings
from tests.docs.test_deploy import COMPOSE, SECRETS, UNIT, analyze, manifest
from tests.docs.test_shell import Shell
from tests.support.image import stages
from tests.support.snippets import ROOT, snippet
from tests.support.tools import tool


def commands(text: str) -> list[list[str]]:
    """Give the words of each command."""
    return [shlex.split(line) for line in text.replace("\\\n", " ").splitlines()]


@pytest.mark.server
@pytest.mark.slow
def test_the_package_is_installed_under_its_own_name_and_serves(tmp_path: Path) -> None:
    made, installed, served = snippet("docs/deployment.md", "A package", "sh").splitlines()
    done = subprocess.run(made.replace("/opt/collab", str(tmp_path / "venv")), shell=True, check=False)
    assert done.returncode == 0 and (tmp_path / "venv" / "bin" / "pip").exists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    path, command, requirement = shlex.split(installed)
    name, _, extra = requirement.removesuffix("]").partition("[")
    assert (path, command, name) == ("/opt/collab/bin/pip", "install", project["name"])
    assert extra in project["optional-dependencies"]
    shell = Shell(tmp_path, **{"/opt/collab/bin/": "", "/var/lib/collab": str(tmp_path / "var")})
    shell.run(served)
    assert (tmp_path / "var" / "collab.db").exists()


def environment(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_environment_of_the_unit_is_what_the_server_wants() -> None:
    given = environment(snippet("docs/deployment.md", "systemd", "ini"))
    assert given.keys() == SECRETS.keys()
    settings = Settings.load(environ=given)
    assert settings.jwt_secret is not None and len(settings.jwt_secret) >= 32


def test_systemd_takes_the_directory_for_sqlite(tmp_path: Path) -> None:
    text = snippet("docs/deployment.md", "systemd", "ini", 2)
    (tmp_path / "collab@1234.service.d").mkdir()
    (tmp_path / "collab@1234.service.d" / "override.conf").write_text(text)
    (tmp_path / "collab").write_text("#!/bin/sh\n")
    (tmp_path / "collab").chmod(0o755)
    unit = UNIT.read_text().replace("/opt/collab/bin/collab", str(tmp_path / "collab"))
    (tmp_path / "collab@1234.service").write_text(unit)
    done = analyze(tmp_path, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "collab@1234.service"))
    assert done.returncode == 0 and "collab@" not in done.stderr, done.stderr
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    name, _, value = parser["Service"]["Environment"].partition("=")
    # %S is /var/lib for a service of the system.
    settings = Settings.load(environ={name: value.replace("%S", "/var/lib")})
    assert settings.data_dir == Path("/var/lib") / parser["Service"]["StateDirectory"]


def test_the_engine_is_told_what_the_image_needs() -> None:
    build, started = commands(snippet("docs/deployment.md", "An image", "sh"))
    assert build == ["docker", "build", "-t", "collab", "."]
    assert started[:2] == ["docker", "run"] and started[-1] == "collab"
    *_, image = stages((ROOT / "Dockerfile").read_text())
    given = {name: value for name, _, value in (started[at + 1].partition("=") for at in _places(started, "-e"))}
    given["COLLAB_JWT_SECRET"] = SECRETS["COLLAB_JWT_SECRET"]  # of the caller's own environment
    settings = Settings.load(environ=image.environment | given)
    settings.check_exposure(True)
    (volume,) = _places(started, "-v")
    assert started[volume + 1].partition(":")[2] == str(settings.data_dir) == image.words("VOLUME")[0]
    (port,) = _places(started, "-p")
    assert started[port + 1].split(":")[2] == str(settings.port) == image.texts("EXPOSE")[0]
    (timeout,) = _places(started, "--stop-timeout")
    assert int(started[timeout + 1]) > settings.drain_seconds


def _places(words: list[str], word: str) -> list[int]:
    return [at for at, each in enumerate(words) if each == word]


def test_the_secrets_of_compose_fit_to_each_other(tmp_path: Path) -> None:
    here = tmp_path / "docs" / "deploy" / "compose"
    shutil.copytree(COMPOSE, here)
    lines = snippet("docs/deployment.md", "Compose", "sh")
    done = subprocess.run(["sh", "-euc", lines], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    secrets = here / "secrets"
    assert secrets.stat().st_mode & 0o777 == 0o700
    password = (secrets / "postgres-password").read_text()
    assert re.fullmatch("[0-9a-f]{48}", password)
    settings = Settings.load({}, str(secrets / "collab.toml"), environ={})
    assert settings.database_url == f"postgresql://collab:{password}@database/collab"
    assert settings.jwt_secret is not None and len(settings.jwt_secret) == 64
    named = yaml.safe_load((here / "compose.yaml").read_text())["secrets"]
    assert {here / secret["file"] for secret in named.values()} == set(secrets.iterdir())
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in secrets.iterdir())


def test_compose_is_started_with_the_name_of_the_site() -> None:
    (words,) = commands(snippet("docs/deployment.md", "Compose", "sh", 2))
    variable, *command = words
    assert command[:3] == ["docker", "compose", "up"]
    assert "${" + variable.partition("=")[0] + ":?" in (COMPOSE / "compose.yaml").read_text()


@pytest.mark.image
@pytest.mark.server
@pytest.mark.slow
def test_kubectl_makes_the_secret_that_the_pods_read(tmp_path: Path) -> None:
    created, applied = snippet("docs/deployment.md", "Kubernetes", "sh").splitlines()
    shell = Shell(tmp_path)
    shell.environment["PATH"] = f"{Path(tool('kubectl')).parent}{os.pathsep}{shell.environment['PATH']}"
    secret = yaml.safe_load(shell.command(f"{created} --dry-run=client -o yaml"))
    (container,) = manifest()["Deployment"]["spec"]["template"]["spec"]["containers"]
    wanted = [variable["valueFrom"]["secretKeyRef"] for variable in container["env"]]
    assert {each["name"] for each in wanted} == {secret["metadata"]["name"]}
    assert {each["key"] for each in wanted} == secret["data"].keys()
    *command, directory = shlex.split(applied)
    assert command == ["kubectl", "apply", "-k"] and (ROOT / directory / "kustomization.yaml").is_file()
