"""Options: one list, four sources, and errors that help."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from collab.errors import ConfigurationError
from collab.settings import Settings, options
from tests.support.options_table import END, START, render

ROOT = Path(__file__).resolve().parents[1]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_override_environment_overrides_file_overrides_default(tmp_path: Path) -> None:
    config = write(tmp_path / "collab.toml", "port = 1\nidle_seconds = 1.5\nhistory_days = 1\n")
    environ = {"COLLAB_PORT": "2", "COLLAB_IDLE_SECONDS": "2.5", "PATH": "/bin"}
    settings = Settings.load({"port": "3", "host": None}, config, environ)
    assert (settings.port, settings.idle_seconds, settings.history_days) == (3, 2.5, 1.0)
    assert settings.host == ("127.0.0.1",)
    assert settings.gather_ms == Settings().gather_ms


def test_every_option_is_read_from_each_source(tmp_path: Path) -> None:
    other = {
        "host": "::1",
        "port": 4321,
        "metrics_port": 9464,
        "metrics_host": "::1",
        "database_url": "sqlite:////srv/x.db",
        "data_dir": "elsewhere",
        "migrate": True,
        "log_level": "debug",
        "log_format": "json",
        "stateless": "off",
        "compression": "large",
        "stamp_users": False,
        "insecure": True,
        "tls_cert": "cert.pem",
        "tls_key": "key.pem",
        "behind_proxy": True,
        "trusted_proxies": "10.0.0.0/8,::1/128",
        "proxy_headers": "forwarded",
        "allowed_origins": "https://a.example,*",
        "jwt_secret": "a secret",
        "cursor_secret": "a secret of at least 32 characters",
        "jwt_keys": "one.pem,two.pem",
        "jwks_file": "jwks.json",
        "jwks_url": "https://issuer.example/jwks.json",
        "jwt_issuer": "an issuer",
        "jwt_audience": "an audience",
        "auth_url": "https://app.example/access",
        "auth_allow_http": True,
        "keep_deleted": "notes/*,plan",
        "history_days_for": "legal/*=3650,plan=1",
        "hooks": "shop.collab:Index,other:hooks",
        "listen_url": "postgresql://collab@direct/collab",
        "redis_url": "rediss://cache:6379",
        "signing_keys": "new.pem,old.pem",
        "signing_issuer": "https://collab.example",
        "webhook_url": "https://app.example/hooks",
        "webhook_secrets": "whsec_one,whsec_two",
        "audit_log": "audit.jsonl",
        "audit_sign_ins": False,
        "webhooks_file": "receivers.toml",
        "trace_ratio": 0.5,
        "trace_url": "http://127.0.0.1:4318/v1/traces",
        "webhook_allow_http": True,
        "webhook_public_only": True,
        "tenants": "claim:org",
        "quota_documents": 1,
        "quota_bytes_stored": 2,
        "quota_bytes_sent": 3,
        "quota_edits": 4,
        "quota_connection_minutes": 5,
        "quota_connections": 6,
        "memory_mark_bytes": 1,
        "memory_limit_bytes": 1,
    }
    for option in options():
        default = getattr(Settings(), option.name)
        value = other[option.name] if option.name in other else default + 1
        as_text = str(value).lower() if isinstance(value, bool) else str(value)
        quoted = as_text if isinstance(value, bool | int | float) else f'"{as_text}"'
        config = write(tmp_path / f"{option.name}.toml", f"{option.name} = {quoted}")
        read = [
            getattr(Settings.load({option.name: as_text}, environ={}), option.name),
            getattr(Settings.load(environ={option.env: as_text}), option.name),
            getattr(Settings.load(config=config, environ={}), option.name),
        ]
        expected: object = Path(as_text) if option.kind == "PATH" else value
        if option.kind.endswith(",..."):
            expected = tuple(map(Path if option.kind.startswith("PATH") else str, as_text.split(",")))
        assert read == [expected] * 3, option.name
        assert expected != default, option.name


def test_the_config_file_may_be_named_in_the_environment(tmp_path: Path) -> None:
    config = write(tmp_path / "collab.toml", "port = 77")
    assert Settings.load(environ={"COLLAB_CONFIG": str(config)}).port == 77
    other = write(tmp_path / "other.toml", "port = 78")
    assert Settings.load(config=other, environ={"COLLAB_CONFIG": str(config)}).port == 78


def test_settings_made_directly_do_not_look_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAB_PORT", "99")
    assert Settings().port == 1234
    assert Settings.load().port == 99


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"^unknown option 'prot'; did you mean port\?$"):
        Settings(**{"prot": 1})
    with pytest.raises(ConfigurationError, match=r"^unknown option 'zzzzzz'; docs/configuration.md"):
        Settings(**{"zzzzzz": 1})


def test_type_checkers_know_every_option_and_its_type(tmp_path: Path) -> None:
    """Checked as the code of others is: with no plugin, and without our settings of mypy."""
    uses = """
        from pathlib import Path
        from collab.settings import Settings
        Settings()
        Settings(port=1, host=("::1",), data_dir=Path("data"), jwt_secret="secret", log_level="debug")
        Settings.load()
        Settings.load({"port": "1"}, Path("collab.toml"), {}, print)
        Settings(prot=1)
        Settings(port="1")
        Settings(log_level="loud")
    """
    lines = textwrap.dedent(uses).strip().splitlines()
    module = write(tmp_path / "uses.py", "\n".join(lines))
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", ""),
            *("--follow-imports", "silent", "--cache-dir", str(tmp_path / "cache"), str(module)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    found = dict(re.findall(r'uses.py:(\d+): error: .*?"(prot|port|log_level)"', checked.stdout))
    assert found == {"7": "prot", "8": "port", "9": "log_level"}, checked.stdout + checked.stderr


def test_variables_that_are_not_used_are_logged_where_nobody_else_hears_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Settings.load(environ={"COLLAB_ZZZZZZ": "100%s"})
    ((name, level, line),) = caplog.record_tuples
    assert (name, level) == ("collab", logging.WARNING) and line.startswith("options: COLLAB_ZZZZZZ in the environment")


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert Settings.load(environ={"COLLAB_DATABASE_URL": "", "COLLAB_PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("environ", "toml", "flags", "expected"),
    [
        ({"COLLAB_PROT": "1"}, None, {}, "unknown variable COLLAB_PROT in the environment; did you mean COLLAB_PORT?"),
        ({"COLLAB_DATABASEURL": "x"}, None, {}, "did you mean COLLAB_DATABASE_URL"),
        ({}, "zzzzzz = 1", {}, "docs/configuration.md"),
        ({}, "idle-seconds = 3", {}, "unknown key 'idle-seconds' in {file}; did you mean idle_seconds?"),
        ({}, "[server]\nport = 1", {}, "unknown key 'server' in {file}"),
        ({}, None, {"prot": "1"}, "did you mean port?"),
        ({"COLLAB_PORT": "tcp//10.0.0.7"}, None, {}, "COLLAB_PORT: must be a valid integer, not 'tcp//10.0.0.7'"),
        ({"COLLAB_PORT": "70000"}, None, {}, "COLLAB_PORT: must be less than or equal to 65535, not '70000'"),
        ({}, "port = -1", {}, "port in {file}: must be greater than or equal to 0, not -1"),
        ({}, None, {"port": "http"}, "--port: must be a valid integer, not 'http'"),
        ({}, None, {"batch_window_ms": "nan"}, "--batch-window-ms: must be a finite number, not 'nan'"),
        ({}, None, {"keepalive_seconds": "31"}, "--keepalive-seconds: must be less than or equal to 25"),
        ({}, None, {"history_days_for": "a*b=3"}, "does not begin with a name, or the beginning of names"),
        ({}, None, {"history_days_for": "a=3,b=long"}, "'b=long' does not end with = and a whole number of days"),
        ({}, None, {"log_level": "loud"}, "--log-level: must be 'debug', 'info', 'warning' or 'error', not 'loud'"),
        ({}, "port = ", {}, "{file} is not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(
    tmp_path: Path, environ: dict[str, str], toml: str | None, flags: dict[str, object], expected: str
) -> None:
    config = write(tmp_path / "collab.toml", toml) if toml is not None else None
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(flags, config, environ)
    assert expected.format(file=config) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_variables_of_others_are_named_and_not_used() -> None:
    services = {
        "COLLAB_SERVICE_HOST": "10.0.0.7",
        "COLLAB_SERVICE_PORT": "1234",
        "COLLAB_SERVICE_PORT_HTTP": "1234",
        "COLLAB_PORT": "tcp://10.0.0.7:1234",
        "COLLAB_PORT_1234_TCP": "tcp://10.0.0.7:1234",
        "COLLAB_PORT_1234_TCP_PROTO": "tcp",
        "COLLAB_PORT_1234_TCP_PORT": "1234",
        "COLLAB_PORT_1234_TCP_ADDR": "10.0.0.7",
        "COLLAB_METRICS_SERVICE_HOST": "10.0.0.7",
        "COLLAB_METRICS_PORT": "tcp://10.0.0.7:9464",
        "COLLAB_METRICS_PORT_9464_TCP_ADDR": "10.0.0.7",
        "COLLAB_DB_SERVICE_HOST": "10.0.0.8",
        "COLLAB_DB_PORT": "tcp://10.0.0.8:5432",
    }
    lines: list[str] = []
    others = {**services, "COLLAB_URL": "https://x"}
    settings = Settings.load(environ={**others, "COLLAB_IDLE_SECONDS": "9"}, warn=lines.append)
    assert settings == Settings(idle_seconds=9)
    assert [line.split()[0] for line in lines] == list(others)
    assert all(("enableServiceLinks" in line) == (not line.startswith("COLLAB_URL")) for line in lines)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration file .*none\.toml: No such file"):
        Settings.load(config=tmp_path / "none.toml", environ={})


LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST"]
REACHABLE = ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org", "::2"]
TLS: dict[str, Any] = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
PROXY: dict[str, Any] = {"behind_proxy": True, "trusted_proxies": "10.0.0.0/8"}


@pytest.mark.parametrize("host", LOOPBACK)
def test_on_loopback_nothing_is_asked_for(host: str) -> None:
    assert Settings(host=host).host == (host.strip("[]"),)
    for authenticated in (True, False):
        Settings(host=host).check_exposure(authenticated)


@pytest.mark.parametrize("host", REACHABLE)
def test_an_address_that_others_reach_needs_authentication_and_a_protected_way(host: str) -> None:
    for more in ({}, TLS):
        with pytest.raises(ConfigurationError, match="not a loopback address .*without authentication.*--insecure"):
            Settings(host=host, **more).check_exposure(False)
    with pytest.raises(ConfigurationError, match="without authentication.*--insecure"):
        Settings(host=host, **PROXY).check_exposure(False)
    with pytest.raises(ConfigurationError, match="without TLS .*--tls-cert.*--behind-proxy.*--insecure"):
        Settings(host=host).check_exposure(True)
    for more in (TLS, PROXY, {"insecure": True}):
        Settings(host=host, **more).check_exposure(True)
    Settings(host=host, insecure=True).check_exposure(False)


def test_behind_a_proxy_loopback_is_not_this_machine_alone() -> None:
    with pytest.raises(ConfigurationError, match="whoever reaches the proxy .*--insecure"):
        Settings(**PROXY).check_exposure(False)
    Settings(**PROXY).check_exposure(True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"tls_cert": "cert.pem"}, "--tls-cert and --tls-key go together"),
        ({"tls_key": "key.pem"}, "--tls-cert and --tls-key go together"),
        ({"behind_proxy": True}, "--behind-proxy needs --trusted-proxies"),
        ({"trusted_proxies": "::1"}, "--trusted-proxies goes with --behind-proxy"),
    ],
)
def test_what_belongs_together_is_asked_for_together(given: dict[str, Any], expected: str) -> None:
    for authenticated in (True, False):
        with pytest.raises(ConfigurationError, match=expected):
            Settings(**given, insecure=True).check_exposure(authenticated)


@pytest.mark.parametrize("name", ["jwt_secret", "jwt_keys", "jwks_file", "jwks_url", "auth_url"])
def test_an_empty_variable_never_turns_authentication_off(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"COLLAB_{name.upper()} is empty"):
        Settings.load(environ={f"COLLAB_{name.upper()}": ""})
    with pytest.raises(ConfigurationError, match=f"--{name.replace('_', '-')}: "):
        Settings.load({name: ""}, environ={})


def test_lists_are_read_from_text_and_from_arrays(tmp_path: Path) -> None:
    config = write(tmp_path / "collab.toml", 'allowed_origins = ["https://A.example:443/", "http://b.example:8080"]')
    assert Settings.load(config=config, environ={}).allowed_origins == ("https://a.example", "http://b.example:8080")
    assert Settings(trusted_proxies=" 10.0.0.0/8 , ::1").trusted_proxies == ("10.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"host": " "}, "--host: is empty"),
        ({"trusted_proxies": "10.0.0.1/8"}, "--trusted-proxies: '10.0.0.1/8' is no network"),
        ({"trusted_proxies": "proxy.internal"}, "--trusted-proxies: 'proxy.internal' is no network"),
        ({"allowed_origins": "app.example"}, "--allowed-origins: 'app.example' is no origin"),
        ({"allowed_origins": "https://app.example/page"}, "is no origin as in https://app.example"),
        ({"jwks_file": ""}, "--jwks-file: is empty"),
        ({"max_connections": "-1"}, "--max-connections: must be greater than or equal to 0"),
    ],
)
def test_what_is_no_entry_of_a_list_is_refused(flags: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(flags, environ={})
    assert expected in str(caught.value)


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    url = "postgresql://user:hunter2@db/collab"
    settings = Settings.load(environ={"COLLAB_DATABASE_URL": url})
    assert settings.database_url == url
    assert "hunter2" not in repr(settings) + str(settings)
    broken = write(tmp_path / "collab.toml", f'database_url = ["{url}"]')
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(config=broken, environ={})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    for name in ("jwt_secret", "jwks_url", "auth_url"):
        settings = Settings.load(environ={f"COLLAB_{name.upper()}": "https://user:hunter2@issuer.example/"})
        assert "hunter2" not in repr(settings) + str(settings)
        broken = write(tmp_path / "collab.toml", f'{name} = ["hunter2"]')
        with pytest.raises(ConfigurationError) as caught:
            Settings.load(config=broken, environ={})
        assert "hunter2" not in str(caught.value)
    unquoted = write(tmp_path / "unquoted.toml", f"database_url = {url}")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(config=unquoted, environ={})
    assert "hunter2" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 5  # type: ignore[misc]


def test_every_option_says_what_it_means_and_its_unit_is_in_its_name() -> None:
    for option in options():
        assert option.description.endswith("."), option.name
        if option.kind == "NUMBER":
            assert option.name.endswith(
                ("_ms", "_seconds", "_per_second", "_per_minute", "_minutes", "_days", "_ratio")
            ), option.name


def test_the_documentation_lists_every_option_as_the_code_has_it() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    written = text.partition(START)[2].partition(END)[0]
    assert written.strip() == render().strip(), "docs/configuration.md is stale: python -m tests.support.options_table"


@pytest.mark.parametrize(
    ("host", "other", "conflict"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "10.0.0.5", True),
        ("10.0.0.5", "::", True),
        ("localhost", "127.0.0.1", True),
        ("localhost", "LOCALHOST", True),
        ("127.0.0.1", "::1", False),
        ("10.0.0.5", "127.0.0.1", False),
        ("10.0.0.5", "localhost", False),
        ("collab.example", "127.0.0.1", False),
    ],
)
def test_metrics_may_have_the_same_port_on_another_address(host: str, other: str, conflict: bool) -> None:
    settings = Settings(host=host, port=9464, metrics_host=other, metrics_port=9464)
    if conflict:
        with pytest.raises(ConfigurationError, match="--metrics-port and --port are both 9464"):
            settings.check_metrics()
    else:
        settings.check_metrics()


def test_free_ports_are_never_the_same() -> None:
    Settings(port=0, metrics_port=0).check_metrics()
    Settings(port=0).check_metrics()


def test_each_worker_needs_a_port_for_metrics() -> None:
    Settings(workers=4, port=1234, metrics_port=1235).check_metrics()
    Settings(workers=4, port=1234, metrics_port=1230).check_metrics()
    Settings(workers=4, port=1234, metrics_port=0).check_metrics()
    Settings(workers=4, port=1234, metrics_port=1233, host="10.0.0.5").check_metrics()
    with pytest.raises(ConfigurationError, match="--port 1234 is among the ports for metrics of 4 workers, 1231 to"):
        Settings(workers=4, port=1234, metrics_port=1231).check_metrics()
    with pytest.raises(ConfigurationError, match="are both 1234"):
        Settings(workers=4, port=1234, metrics_port=1234).check_metrics()
    with pytest.raises(ConfigurationError, match="too few ports behind it for 4 workers"):
        Settings(workers=4, metrics_port=65533).check_metrics()
    for wrong in (0, 257):
        with pytest.raises(ConfigurationError, match="workers: must be"):
            Settings(workers=wrong)


def test_several_hosts() -> None:
    assert Settings(host="127.0.0.1, [::1],127.0.0.1").host == ("127.0.0.1", "::1")
    assert Settings(host=["::1"]).host == ("::1",)
    for none in ("", "127.0.0.1,", [], [" "]):
        with pytest.raises(ConfigurationError, match="host: is empty"):
            Settings(host=none)
    with pytest.raises(ConfigurationError, match=r"'10.0.0.5' is not a loopback address"):
        Settings(host="127.0.0.1,10.0.0.5").check_exposure(False)
    assert Settings(host="127.0.0.1,::1").on_loopback
    with pytest.raises(ConfigurationError, match="are both 9464"):
        Settings(host="10.0.0.5,127.0.0.1", port=9464, metrics_port=9464).check_metrics()


def test_patterns_of_names() -> None:
    assert Settings(keep_deleted="a, b/*,*").keep_deleted == ("a", "b/*", "*")
    for wrong in ("a*b", "*/a", "**"):
        with pytest.raises(ConfigurationError, match="keep_deleted: .* is no name, nor the beginning"):
            Settings(keep_deleted=wrong)
