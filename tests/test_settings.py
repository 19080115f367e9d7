"""Options: one list, four sources, and errors that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from collab.errors import ConfigurationError
from collab.settings import Settings, load_settings, options
from tests.support.options_table import END, START, render

ROOT = Path(__file__).resolve().parents[1]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_override_environment_overrides_file_overrides_default(tmp_path: Path) -> None:
    config = write(tmp_path / "collab.toml", "port = 1\nidle_seconds = 1.5\nhistory_days = 1\n")
    environ = {"COLLAB_PORT": "2", "COLLAB_IDLE_SECONDS": "2.5", "PATH": "/bin"}
    settings = load_settings({"port": "3", "host": None}, config, environ)
    assert (settings.port, settings.idle_seconds, settings.history_days) == (3, 2.5, 1.0)
    assert settings.host == "127.0.0.1"
    assert settings.gather_ms == Settings().gather_ms


def test_every_option_is_read_from_each_source(tmp_path: Path) -> None:
    other = {
        "host": "::1",
        "port": 4321,
        "database_url": "sqlite:////srv/x.db",
        "data_dir": "elsewhere",
        "migrate": True,
        "log_level": "debug",
        "stateless": "off",
        "stamp_users": False,
    }
    for option in options():
        default = getattr(Settings(), option.name)
        value = other[option.name] if option.name in other else default + 1
        as_text = str(value).lower() if isinstance(value, bool) else str(value)
        quoted = as_text if isinstance(value, bool | int | float) else f'"{as_text}"'
        config = write(tmp_path / f"{option.name}.toml", f"{option.name} = {quoted}")
        read = [
            getattr(load_settings({option.name: as_text}, environ={}), option.name),
            getattr(load_settings(environ={option.env: as_text}), option.name),
            getattr(load_settings(config=config, environ={}), option.name),
        ]
        expected = Path(as_text) if option.kind == "PATH" else value
        assert read == [expected] * 3, option.name
        assert expected != default, option.name


def test_the_config_file_may_be_named_in_the_environment(tmp_path: Path) -> None:
    config = write(tmp_path / "collab.toml", "port = 77")
    assert load_settings(environ={"COLLAB_CONFIG": str(config)}).port == 77
    other = write(tmp_path / "other.toml", "port = 78")
    assert load_settings(config=other, environ={"COLLAB_CONFIG": str(config)}).port == 78


def test_settings_made_directly_do_not_look_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAB_PORT", "99")
    assert Settings().port == 1234
    assert load_settings().port == 99


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert load_settings(environ={"COLLAB_DATABASE_URL": "", "COLLAB_PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("environ", "toml", "flags", "expected"),
    [
        ({"COLLAB_PROT": "1"}, None, {}, "unknown variable COLLAB_PROT in the environment; did you mean COLLAB_PORT?"),
        ({"COLLAB_DATABASEURL": "x"}, None, {}, "did you mean COLLAB_DATABASE_URL?"),
        ({"COLLAB_ZZZZZZ": "x"}, None, {}, "docs/configuration.md"),
        ({}, "idle-seconds = 3", {}, "unknown key 'idle-seconds' in {file}; did you mean idle_seconds?"),
        ({}, "[server]\nport = 1", {}, "unknown key 'server' in {file}"),
        ({}, None, {"prot": "1"}, "did you mean port?"),
        ({"COLLAB_PORT": "tcp://10.0.0.7:1234"}, None, {}, "enableServiceLinks"),
        ({"COLLAB_SERVICE_HOST": "10.0.0.7"}, None, {}, "enableServiceLinks"),
        ({"COLLAB_PORT": "70000"}, None, {}, "COLLAB_PORT: must be less than or equal to 65535, not '70000'"),
        ({}, "port = -1", {}, "port in {file}: must be greater than or equal to 0, not -1"),
        ({}, None, {"port": "http"}, "--port: must be a valid integer, not 'http'"),
        ({}, None, {"batch_window_ms": "nan"}, "--batch-window-ms: must be a finite number, not 'nan'"),
        ({}, None, {"keepalive_seconds": "31"}, "--keepalive-seconds: must be less than or equal to 25"),
        ({}, None, {"log_level": "loud"}, "--log-level: must be 'debug', 'info', 'warning' or 'error', not 'loud'"),
        ({}, "port = ", {}, "{file} is not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(
    tmp_path: Path, environ: dict[str, str], toml: str | None, flags: dict[str, object], expected: str
) -> None:
    config = write(tmp_path / "collab.toml", toml) if toml is not None else None
    with pytest.raises(ConfigurationError) as caught:
        load_settings(flags, config, environ)
    assert expected.format(file=config) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration file .*none\.toml: No such file"):
        load_settings(config=tmp_path / "none.toml", environ={})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_addresses_are_taken(host: str) -> None:
    assert Settings(host=host).host == host.strip("[]")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org", "::2"])
def test_other_addresses_are_refused_with_the_reason(host: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a loopback address.*until access control is built in"):
        Settings(host=host)


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    url = "postgresql://user:hunter2@db/collab"
    settings = load_settings(environ={"COLLAB_DATABASE_URL": url})
    assert settings.database_url == url
    assert "hunter2" not in repr(settings) + str(settings)
    broken = write(tmp_path / "collab.toml", f'database_url = ["{url}"]')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config=broken, environ={})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    unquoted = write(tmp_path / "unquoted.toml", f"database_url = {url}")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config=unquoted, environ={})
    assert "hunter2" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 5  # type: ignore[misc]


def test_every_option_says_what_it_means_and_its_unit_is_in_its_name() -> None:
    for option in options():
        assert option.description.endswith("."), option.name
        if option.kind == "NUMBER":
            assert option.name.endswith(("_ms", "_seconds", "_per_second", "_days", "_ratio")), option.name


def test_the_documentation_lists_every_option_as_the_code_has_it() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    written = text.partition(START)[2].partition(END)[0]
    assert written.strip() == render().strip(), "docs/configuration.md is stale: python -m tests.support.options_table"
