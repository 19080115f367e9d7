"""Every option of the server, once: its name, default, bounds and meaning.

Strategy: the fields of ``Settings`` are the only list of options. Flags, environment variables,
keys of the TOML file, ``--help`` and ``docs/configuration.md`` are all derived from them, so an
option cannot exist in one place and not in another. A flag overrides the environment, which
overrides the file, which overrides the default. A name that nobody knows is an error and not a
silence: a misspelt limit is no limit.

Numbers are plain; their unit is the end of their name. The server reads its settings when it
starts and never again.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from collab.errors import ConfigurationError

ENV_PREFIX = "COLLAB_"

CONFIG_ENV = "COLLAB_CONFIG"
"""The environment's name for ``--config``, which is no field: it says where fields are read."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_KUBERNETES = (
    "Kubernetes sets it for a service named collab: put enableServiceLinks: false into the pod, or rename the service"
)


class Settings(BaseModel):
    """The options of one server: what is not given has its default.

    ``Settings(port=0)`` looks nowhere else, so that an application that mounts ours decides alone;
    ``load_settings`` is what reads the environment and a file. Raises ``ConfigurationError``, one
    line that never shows a password. Instances do not change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Loopback addresses only, until access control is built in.",
    )
    port: int = Field(
        1234,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 takes a free one, which the first line of output names.",
    )
    database_url: str | None = Field(
        None,
        # It may hold a password: never in repr() or str() of the settings, nor in an error of ours.
        repr=False,
        description=(
            "Where documents are stored: sqlite:///path/file.db or postgresql://user:password@host/database. "
            "Without it, the file collab.db in the data directory."
        ),
    )
    data_dir: Path = Field(
        Path("data"), description="Directory for the SQLite file when no database URL is given; made if it is missing."
    )
    migrate: bool = Field(
        False,
        description=(
            "Bring a PostgreSQL database to the newest schema at the start; several nodes may do so at once. "
            "SQLite is always migrated."
        ),
    )
    batch_window_ms: float = Field(
        4.0,
        ge=0,
        le=1_000,
        description=(
            "Milliseconds within which the edits of a busy document travel together. "
            "The first edit after quiet is never delayed. 0 turns it off."
        ),
    )
    gather_ms: float = Field(
        50.0,
        ge=0,
        le=1_000,
        description=(
            "Milliseconds for which the journal, under load, gathers edits of all documents for one commit: so long "
            "the word that an edit is saved may take. The first edit after quiet is never delayed."
        ),
    )
    backlog_bytes: int = Field(
        64 * MIB,
        ge=64 * KIB,
        description=(
            "Bytes of edits that may wait for a store that fails. Past it the connections that send new edits "
            "are closed with 1013, so that clients keep their edits and come back."
        ),
    )
    history_days: float = Field(
        30.0,
        ge=0,
        le=36_500,
        description=(
            "Days for which every state of a document can be rebuilt. What is older and not needed for it is removed."
        ),
    )
    compact_rows: int = Field(
        500, ge=1, description="Log rows after the newest snapshot from which a new snapshot is considered."
    )
    compact_bytes: int = Field(
        256 * KIB, ge=1, description="Bytes of log after the newest snapshot from which a new snapshot is considered."
    )
    compact_ratio: float = Field(
        0.5,
        ge=0,
        le=100,
        description=(
            "Length of the log after the newest snapshot, in proportion to the snapshot, from which a new one is made. "
            "It keeps the cost of compaction for each edit constant, however large the document grows."
        ),
    )
    idle_seconds: float = Field(
        30.0, ge=0, le=86_400, description="Seconds without a connection after which a document leaves memory."
    )
    drain_seconds: float = Field(
        20.0, gt=0, le=3_600, description="Seconds within which the server has stopped after SIGTERM or SIGINT."
    )
    max_message_bytes: int = Field(
        16 * MIB,
        ge=1 * KIB,
        le=1 * GIB,
        description="Largest message of a client; a larger one closes it with 1009.",
    )
    max_document_bytes: int = Field(
        256 * MIB,
        ge=1 * KIB,
        # A row and a snapshot are one value of bytea, which ends at 1 GiB.
        le=1_000 * MIB,
        description="Largest document, encoded; an edit that makes it larger closes its client with 4413.",
    )
    max_awareness_bytes: int = Field(
        64 * KIB, ge=16, le=16 * MIB, description="Largest awareness state (JSON, UTF-8) of one client."
    )
    max_awareness_ids: int = Field(
        100, ge=1, le=100_000, description="Awareness states (client ids) that one connection may own."
    )
    outbox_bytes: int = Field(
        1 * MIB,
        ge=1 * KIB,
        description=(
            "Bytes waiting for one client past which it gets no live messages until it has drained; "
            "then it gets one catch-up."
        ),
    )
    slow_seconds: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="Seconds without progress after which a client that cannot keep up is closed.",
    )
    sync_timeout_seconds: float = Field(
        30.0, gt=0, le=3_600, description="Seconds a client may take to answer the server's sync step 1."
    )
    keepalive_seconds: float = Field(
        20.0,
        gt=0,
        # y-websocket takes the connection for dead after 30 s without a message.
        le=25,
        description=(
            "Seconds of silence after which a client is sent a message: y-websocket reconnects after 30 s without one."
        ),
    )
    ping_seconds: float = Field(
        30.0,
        gt=0,
        le=3_600,
        description="Seconds between WebSocket pings; a client that does not answer one is taken for gone.",
    )
    auth_seconds: float = Field(
        30.0,
        gt=0,
        le=3_600,
        description=(
            "Seconds for one decision on access, and for a Hocuspocus client to be let in to any document; "
            "then it is closed with 4408."
        ),
    )
    max_documents_per_connection: int = Field(
        1_000, ge=1, le=100_000, description="Documents that one Hocuspocus client may have open on one connection."
    )
    stateless: Literal["relay", "off"] = Field(
        "relay",
        description=(
            "What happens to stateless messages of Hocuspocus clients: relay (to the document's other Hocuspocus "
            "clients) or off."
        ),
    )
    max_stateless_bytes: int = Field(
        64 * KIB, ge=1, le=16 * MIB, description="Largest stateless message (UTF-8); a larger one ends the session."
    )
    max_stateless_per_second: float = Field(
        50.0,
        ge=1,
        le=1_000_000,
        description="Stateless messages a second of one connection, past which it is read more slowly.",
    )
    stamp_users: bool = Field(
        True,
        description=(
            "Write who a client is (the token's sub and name) into the field user of its awareness states, so that "
            "nobody poses as somebody else."
        ),
    )
    sandbox_processes: int = Field(
        1, ge=1, le=64, description="Processes for work on documents that may crash or hang; started when first needed."
    )
    sandbox_seconds: float = Field(
        60.0,
        gt=0,
        le=3_600,
        description="Seconds after which one job in such a process is given up and its process killed.",
    )
    sandbox_memory_bytes: int = Field(
        2 * GIB,
        ge=256 * MIB,
        description="Address space that such a process may take; a job that needs more fails, and nothing else.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level of the log lines written to standard error: debug, info, warning or error."
    )

    def __init__(self, **values: Any) -> None:
        """Take ``values`` by field name; raises ``ConfigurationError`` with one line for the first that is wrong."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explain(error, values) from None

    @field_validator("host")
    @classmethod
    def _loopback_only(cls, host: str) -> str:
        host = host.strip()
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        try:
            loopback = ip_address(host).is_loopback
        except ValueError:
            # Only this name is promised to mean the machine itself (RFC 6761, section 6.3).
            loopback = host.lower() == "localhost"
        if not loopback:
            raise ValueError(
                f"{host!r} is not a loopback address (127.0.0.1, ::1, localhost): until access control is built in, "
                "whoever reaches the port may read and change every document, so the server listens on loopback only"
            )
        return host

    @field_validator("data_dir")
    @classmethod
    def _at_home(cls, data_dir: Path) -> Path:
        return data_dir.expanduser()

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, level: object) -> object:
        return level.lower() if isinstance(level, str) else level


@dataclass(frozen=True, slots=True)
class Option:
    """One option as its users see it."""

    name: str
    """The field, which is also the key in the TOML file."""
    flag: str
    """``--batch-window-ms``."""
    env: str
    """``COLLAB_BATCH_WINDOW_MS``."""
    default: str
    """The default as text; empty when there is none."""
    kind: str
    """What to write: TEXT, PATH, URL, INTEGER, NUMBER, or nothing for a switch."""
    description: str


def options() -> list[Option]:
    """List every option in the order of ``Settings``."""
    return [
        Option(
            name=name,
            flag=flag_of(name),
            env=env_of(name),
            default=_shown(name, field.default),
            kind="URL" if name == "database_url" else _KINDS.get(field.annotation, "TEXT"),
            description=field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


_KINDS: dict[object, str] = {int: "INTEGER", float: "NUMBER", bool: "", Path: "PATH"}


def _shown(name: str, default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, int) and name.endswith("_bytes"):
        size, unit = next((size, unit) for size, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")) if default >= size)
        return f"{default} ({default // size} {unit})"
    return str(default)


def flag_of(name: str) -> str:
    """Give the flag of the option ``name``."""
    return "--" + name.replace("_", "-")


def env_of(name: str) -> str:
    """Give the environment variable of the option ``name``."""
    return ENV_PREFIX + name.upper()


def load_settings(
    flags: Mapping[str, object] | None = None,
    config: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings: ``flags`` over the environment over the TOML file ``config`` over the defaults.

    ``flags`` are by field name, ``None`` for one not given. ``config`` defaults to ``COLLAB_CONFIG``.
    ``environ`` (default: the process's) is looked through for unknown ``COLLAB_...`` names.
    Raises ``ConfigurationError``, one line, for unknown names (with the near ones), a file that
    cannot be read, and values out of their bounds (with where the value came from).
    """
    env = os.environ if environ is None else environ
    known = list(Settings.model_fields)
    ours = {key: value for key, value in env.items() if key.startswith(ENV_PREFIX)}
    for key, value in ours.items():
        if key != CONFIG_ENV and key[len(ENV_PREFIX) :].lower() not in Settings.model_fields:
            hint = (
                _KUBERNETES if _from_kubernetes(key, value) else near(key, [env_of(name) for name in known], ENV_PREFIX)
            )
            raise ConfigurationError(f"unknown variable {key} in the environment; {hint}")

    sources: dict[str, str] = {}
    values: dict[str, object] = {}
    config = config or ours.get(CONFIG_ENV) or None
    if config is not None:
        for key, value in _read_file(Path(config)).items():
            if key not in Settings.model_fields:
                raise ConfigurationError(f"unknown key {key!r} in {config}; {near(key, known)}")
            values[key] = value
            sources[key] = f"{key} in {config}"
    for name in known:
        if text := ours.get(env_of(name)):
            values[name] = text
            sources[name] = env_of(name)
            if name == "port" and _from_kubernetes(env_of(name), text):
                raise ConfigurationError(f"{env_of(name)} is {text!r}, which is no port number; {_KUBERNETES}")
    for name, flag in (flags or {}).items():
        if flag is not None:
            values[name] = flag
            sources[name] = flag_of(name)

    try:
        return Settings(**values)
    except ConfigurationError as error:
        # "name: what is wrong" becomes "where it was said: what is wrong".
        name, colon, rest = str(error).partition(": ")
        raise ConfigurationError(sources.get(name, name) + colon + rest) from None


def near(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Say which of ``known`` look like ``name``, without ``prefix``: ``did you mean a or b?``, or where all are."""
    by_core = {_core(candidate, prefix): candidate for candidate in known}
    core = _core(name, prefix)
    close = [core] if core in by_core else difflib.get_close_matches(core, by_core, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(by_core[match] for match in close)}?"
    return "docs/configuration.md and collab serve --help list what there is"


def _core(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("-", "_")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # The parser's message has line and column and never the text itself, which may be a password.
        raise ConfigurationError(f"{path} is not TOML: {error}") from None


def _from_kubernetes(key: str, value: str) -> bool:
    return value.startswith(("tcp://", "udp://")) or key.startswith(f"{ENV_PREFIX}SERVICE_") or "_PORT_" in key


def _explain(error: ValidationError, values: Mapping[str, object]) -> ConfigurationError:
    """Make one line of pydantic's first complaint: the field, what is wanted and, if not secret, what was given."""
    first = error.errors(include_url=False, include_context=True)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        return ConfigurationError(f"unknown option {name!r}; {near(name, Settings.model_fields)}")
    if first["type"] == "value_error":
        return ConfigurationError(f"{name}: {first['ctx']['error']}")
    wanted = first["msg"].replace("Input should be ", "must be ", 1)
    wanted = wanted.partition(", unable to ")[0]
    field = Settings.model_fields.get(name)
    if field is None or name == "database_url":
        return ConfigurationError(f"{name}: {wanted}")
    return ConfigurationError(f"{name}: {wanted}, not {values.get(name)!r}")
