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
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from collab.errors import ConfigurationError
from collab.net import ANY, is_loopback, normal_origin, overlap, parse_network
from collab.telemetry import get_logger

ENV_PREFIX = "COLLAB_"

CONFIG_ENV = "COLLAB_CONFIG"
"""The environment's name for ``--config``, which is no field: it says where fields are read."""

_MOST_DAYS = 36_500
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_LAST_PORT = 65535

MAX_WORKERS = 256
"""Far above the cores of a machine; each worker has connections to the database."""

SET_AUTHENTICATION = "set --jwt-secret (as COLLAB_JWT_SECRET), --jwt-keys, --jwks-file, --jwks-url or --auth-url"
"""What to do where there is no authentication; docs/security.md says more."""

_SECRET = frozenset(
    {
        "database_url",
        "listen_url",
        "redis_url",
        "jwt_secret",
        "cursor_secret",
        "jwks_url",
        "auth_url",
        "webhook_url",
        "webhook_secrets",
        "trace_url",
    }
)
"""Options that may hold a secret: never in repr() or str() of the settings, nor in an error of ours."""

_NEVER_EMPTY = frozenset(
    {"jwt_secret", "cursor_secret", "jwt_keys", "jwks_file", "jwks_url", "auth_url", "signing_keys"}
)
"""Variables whose being empty means that something went missing in a deployment, and not that nothing is wanted."""

QUOTAS = ("documents", "bytes_stored", "bytes_sent", "edits", "connection_minutes", "connections")
"""The names of the quotas of tenants; each is an option ``quota_NAME``."""

_URLS = frozenset({"database_url", "listen_url", "redis_url", "jwks_url", "auth_url", "webhook_url", "trace_url"})

# What Kubernetes and, for links, Docker put into the environment of a pod for each service.
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://\S+")
_SERVICE_VARIABLE = re.compile(r"_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")

_ALL = "docs/configuration.md and collab serve --help list what there is"

_KUBERNETES = "it looks like one that Kubernetes sets for a service (enableServiceLinks: false leaves them out)"


class Settings(BaseModel):
    """The options of one server: what is not given has its default.

    ``Settings(port=0)`` looks nowhere else, so that an application that mounts ours decides alone;
    ``Settings.load()`` reads the environment and a file, as ``collab serve`` does. Type checkers know
    the names and types of all options. Both raise ``ConfigurationError``, one line that never shows a
    password, also for an unknown name. Instances do not change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    host: tuple[str, ...] = Field(
        default=("127.0.0.1",),
        description=(
            "Addresses or names to listen on, separated by commas; :: is all addresses, of IPv6 and IPv4. One that "
            "other machines reach needs authentication, and TLS or --behind-proxy."
        ),
    )
    port: int = Field(
        default=1234,
        ge=0,
        le=_LAST_PORT,
        description="TCP port to listen on; 0 takes a free one, which the first line of output names.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=MAX_WORKERS,
        description=(
            "Processes of collab serve that share --port, one for each core. More than one need PostgreSQL. Each is a "
            "node of its own: what the other options bound, each of them bounds for itself."
        ),
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=_LAST_PORT,
        description=(
            "TCP port of its own for /metrics, by plain http and without authentication; 0 takes a free one. Without "
            "it, /metrics is on --port for tokens with admin for *. With --workers the first has this port, the second "
            "the next one, and so on."
        ),
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        description="Address to listen on for --metrics-port; whoever reaches it may read the numbers.",
    )
    insecure: bool = Field(
        default=False,
        description="Listen on any address, also without authentication or TLS: for networks that nobody else is on.",
    )
    tls_cert: Path | None = Field(
        default=None, description="Certificate (PEM, with its chain) to serve https and wss by; read again on SIGHUP."
    )
    tls_key: Path | None = Field(default=None, description="Private key (PEM, without a password) of the certificate.")
    behind_proxy: bool = Field(
        default=False,
        description=(
            "Clients come through proxies, which end TLS and say in headers for whom they speak; "
            "needs --trusted-proxies."
        ),
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="Networks or addresses of those proxies (10.0.0.0/8, ::1), separated by commas."
    )
    proxy_headers: Literal["x-forwarded", "forwarded"] = Field(
        default="x-forwarded",
        description=(
            "What the proxies write: x-forwarded (X-Forwarded-For, -Proto, -Host) or forwarded (RFC 7239). "
            "The other is not read, because proxies pass it on as the client sent it."
        ),
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        description=(
            "Web pages that may connect, beside those of the server's own address: origins (https://app.example), "
            "separated by commas, or * for all."
        ),
    )
    jwt_secret: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description=(
            "Shared secret of HS256 tokens, at least 32 bytes. Better as a variable: flags show in the list of "
            "processes."
        ),
    )
    cursor_secret: str | None = Field(
        default=None,
        min_length=32,
        repr=False,
        description=(
            "Secret of at least 32 characters, the same on all nodes, by which the cursors of lists are sealed: they "
            "show nothing of documents that their reader may not read. Without it the JWT secret is taken for this. "
            "Needed on PostgreSQL where tokens are checked in another way."
        ),
    )
    jwt_keys: tuple[Path, ...] = Field(
        default=(), description="Files with one public key each (PEM or JWK) that verify tokens, separated by commas."
    )
    jwks_file: Path | None = Field(default=None, description="File with a JWK set that verifies tokens.")
    jwks_url: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="Address of a JWK set that verifies tokens, as issuers publish it.",
    )
    jwks_refresh_seconds: float = Field(
        default=300.0, ge=1, le=86_400, description="Seconds after which the set of --jwks-url is fetched anew."
    )
    jwt_issuer: str | None = Field(default=None, min_length=1, description="What the claim iss of a token must be.")
    jwt_audience: str | None = Field(
        default=None, min_length=1, description="What the claim aud of a token must be or hold."
    )
    jwt_leeway_seconds: float = Field(
        default=10.0, ge=0, le=300, description="Seconds by which clocks may differ at both ends of a token's time."
    )
    auth_url: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="The application's own endpoint, asked about every document that a client opens.",
    )
    auth_timeout_seconds: float = Field(
        default=5.0, gt=0, le=60, description="Seconds for one answer of --auth-url or --jwks-url."
    )
    auth_cache_seconds: float = Field(
        default=10.0,
        ge=0,
        le=3_600,
        description="Seconds for which a grant of --auth-url is kept, never longer than it lasts.",
    )
    auth_allow_http: bool = Field(
        default=False, description="Let --auth-url and --jwks-url be plain http to other machines than this one."
    )
    max_share_seconds: int = Field(
        default=30 * 86_400,
        ge=0,
        le=366 * 86_400,
        description=(
            "Longest life, in seconds, of a link by which a user who may write a document shares it with guests; needs "
            "--jwt-secret, which signs it. 0 turns such links off."
        ),
    )
    signing_keys: tuple[Path, ...] = Field(
        default=(),
        description=(
            "Files with keys of the server's own (PEM, JWK or JWK set; RSA, EC on P-256 or Ed25519), separated by "
            "commas. The first key signs what is asked of --auth-url and what receivers of webhooks are told; all of "
            "them are published at /.well-known/jwks.json. Read again on SIGHUP."
        ),
    )
    signing_issuer: str = Field(
        default="collab",
        min_length=1,
        max_length=1_024,
        description="What the claim iss says in what --signing-keys sign, such as the address of the server.",
    )
    database_url: str | None = Field(
        default=None,
        repr=False,
        description=(
            "Where documents are stored: sqlite:///path/file.db or postgresql://user:password@host/database. "
            "Without it, the file collab.db in the data directory."
        ),
    )
    listen_url: str | None = Field(
        default=None,
        repr=False,
        description=(
            "Where nodes on PostgreSQL tell each other what they have written: the address of the same database past "
            "a pooler, which would not pass notifications on. Without it, the address of the database."
        ),
    )
    redis_url: str | None = Field(
        default=None,
        repr=False,
        description=(
            "Let nodes tell each other what they have written over Redis or Valkey, which is faster: "
            "redis://, rediss:// (TLS), unix://, redis+sentinel:// or redis+cluster://. Edits never depend on it."
        ),
    )
    data_dir: Path = Field(
        default=Path("data"),
        description="Directory for the SQLite file when no database URL is given; made if it is missing.",
    )
    migrate: bool = Field(
        default=False,
        description=(
            "Bring a PostgreSQL database to the newest schema at the start; several nodes may do so at once. "
            "SQLite is always migrated."
        ),
    )
    batch_window_ms: float = Field(
        default=4.0,
        ge=0,
        le=1_000,
        description=(
            "Milliseconds within which the edits of a document with twenty people travel together on a busy node. "
            "The fewer people and the less load, the shorter; the first edit after quiet is never delayed. "
            "0 turns it off."
        ),
    )
    gather_ms: float = Field(
        default=50.0,
        ge=0,
        le=1_000,
        description=(
            "Milliseconds for which the journal, under load, gathers edits of all documents for one commit: so long "
            "the word that an edit is saved may take. The first edit after quiet is never delayed."
        ),
    )
    backlog_bytes: int = Field(
        default=64 * MIB,
        ge=64 * KIB,
        description=(
            "Bytes of edits that may wait for a store that fails. Past it the connections that send new edits "
            "are closed with 1013, so that clients keep their edits and come back."
        ),
    )
    history_days: float = Field(
        default=30.0,
        ge=0,
        le=36_500,
        description=(
            "Days for which every state of a document can be rebuilt. What is older and not needed for it is removed."
        ),
    )
    history_days_for: tuple[str, ...] = Field(
        default=(),
        description=(
            "Documents with another number of days than --history-days, separated by commas: their names, or "
            "beginnings of names with a * behind, each with = and the days, as in legal/*=3650. The first one that is "
            "for a document counts."
        ),
    )
    auto_version_minutes: float = Field(
        default=10.0,
        ge=0,
        le=525_600,
        description=(
            "Minutes between two automatic versions of a document, at least. They are noted after a pause in editing, "
            "and before a reset, a restore and the first edits of a program over HTTP. 0: there are none."
        ),
    )
    trash_days: float = Field(
        default=30.0,
        ge=0,
        le=36_500,
        description="Days for which a deleted document can be restored; then its content is removed. 0: at once.",
    )
    compact_rows: int = Field(
        default=500, ge=1, description="Log rows after the newest snapshot from which a new snapshot is considered."
    )
    compact_bytes: int = Field(
        default=256 * KIB,
        ge=1,
        description="Bytes of log after the newest snapshot from which a new snapshot is considered.",
    )
    compact_ratio: float = Field(
        default=0.5,
        ge=0,
        le=100,
        description=(
            "Length of the log after the newest snapshot, in proportion to the snapshot, from which a new one is made. "
            "It keeps the cost of compaction for each edit constant, however large the document grows."
        ),
    )
    keep_deleted: tuple[str, ...] = Field(
        default=(),
        description=(
            "Documents of which compaction keeps deleted content, for programs that use snapshots of yjs (gc: false): "
            "names, or beginnings of names with a * behind, separated by commas. Each is marked in the database with "
            "its next edit, and keeps its deleted content when this option goes."
        ),
    )
    idle_seconds: float = Field(
        default=30.0, ge=0, le=86_400, description="Seconds without a connection after which a document leaves memory."
    )
    drain_seconds: float = Field(
        default=20.0,
        gt=0,
        le=3_600,
        description=(
            "Seconds within which the server has stopped after SIGTERM or SIGINT, --drain-delay-seconds included."
        ),
    )
    drain_delay_seconds: float = Field(
        default=5.0,
        ge=0,
        le=3_600,
        description=(
            "Seconds after SIGTERM for which connections are still taken while /readyz says 503, so that proxies "
            "notice; at most half of --drain-seconds. SIGINT (Ctrl-C) does not wait, and a second signal ends the wait."
        ),
    )
    max_message_bytes: int = Field(
        default=100 * MIB,  # what the package ws takes in Node by default: more could not be passed on to its clients
        ge=1 * KIB,
        le=1 * GIB,
        description=(
            "Largest message of a client that may write its document: an offline document, a paste. A larger one is "
            "refused for good (4413). Others may send --max-unauthenticated-bytes."
        ),
    )
    max_arriving_bytes: int = Field(
        default=256 * MIB,
        ge=64 * KIB,
        description=(
            "Bytes of large messages that are not whole yet, of all clients together. Past it all but the first of "
            "them wait. Clients that may not write have an eighth of it beside."
        ),
    )
    min_bytes_per_second: float = Field(
        default=1.0 * KIB,
        ge=1,
        le=1 * MIB,
        description=(
            "Bytes a second at which a message or an answer must come: as long as they do, its client is neither "
            "silent nor late. A slower one is closed with 4508."
        ),
    )
    max_document_bytes: int = Field(
        default=256 * MIB,
        ge=1 * KIB,
        # A row and a snapshot are one value of bytea, which ends at 1 GiB.
        le=1_000 * MIB,
        description=(
            "Largest document, encoded, without what is overwritten and deleted; an edit that makes it larger closes "
            "its client with 4413."
        ),
    )
    max_pending_bytes: int = Field(
        default=1 * MIB,
        ge=0,
        le=64 * MIB,
        description=(
            "Bytes of updates of one document that wait for edits which nobody has sent yet, kept beside the document; "
            "what is over is refused."
        ),
    )
    max_awareness_bytes: int = Field(
        default=64 * KIB,
        ge=16,
        le=16 * MIB,
        description=(
            "Awareness states (JSON, UTF-8) of one connection together; what goes past it is not shown to the others."
        ),
    )
    max_awareness_ids: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Awareness states (client ids) that one connection may own; more are not shown to the others.",
    )
    outbox_bytes: int = Field(
        default=1 * MIB,
        ge=1 * KIB,
        description=(
            "Bytes waiting for one client past which it gets no live messages until it has drained; "
            "then it gets one catch-up."
        ),
    )
    compression: Literal["off", "large"] = Field(
        default="off",
        description=(
            "Whether frames of 8 KiB and more are compressed for clients that can read them: off or large. "
            "Browsers then compress all that they send, and each connection costs some 40 KB more."
        ),
    )
    slow_seconds: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="Seconds without progress after which a client that cannot keep up is closed.",
    )
    sync_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        le=3_600,
        description=(
            "Seconds a client may take to answer the server's sync step 1, while less than --min-bytes-per-second "
            "comes from it."
        ),
    )
    keepalive_seconds: float = Field(
        default=20.0,
        gt=0,
        # y-websocket takes the connection for dead after 30 s without a message.
        le=25,
        description=(
            "Seconds of silence after which a client is sent a message: y-websocket reconnects after 30 s without one."
        ),
    )
    ping_seconds: float = Field(
        default=30.0,
        gt=0,
        le=3_600,
        description="Seconds between WebSocket pings; a client that does not answer one is taken for gone.",
    )
    auth_seconds: float = Field(
        default=30.0,
        gt=0,
        le=3_600,
        description=(
            "Seconds for one decision on access, and for a Hocuspocus client to be let in to any document; "
            "then it is closed with 4408."
        ),
    )
    max_documents_per_connection: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Documents that one Hocuspocus client may have open on one connection.",
    )
    stateless: Literal["relay", "off"] = Field(
        default="relay",
        description=(
            "What happens to stateless messages of Hocuspocus clients: relay (to the document's other Hocuspocus "
            "clients) or off."
        ),
    )
    max_stateless_bytes: int = Field(
        default=64 * KIB,
        ge=1,
        le=16 * MIB,
        description="Largest stateless message (UTF-8); a larger one is not relayed.",
    )
    max_stateless_per_second: float = Field(
        default=50.0,
        ge=1,
        le=1_000_000,
        description=(
            "Stateless messages a second of one connection, past which it is read more slowly, and closed as "
            "--flood-seconds says."
        ),
    )
    hooks: tuple[str, ...] = Field(
        default=(),
        description=(
            "Python hooks (docs/hooks.md): MODULE:NAME each, of an instance or a class of hooks, separated by commas. "
            "Modules are looked for in the working directory too."
        ),
    )
    hook_seconds: float = Field(
        default=10.0, gt=0, le=600, description="Seconds for one call of a hook; then it is cancelled and given up."
    )
    hook_interval_seconds: float = Field(
        default=2.0,
        ge=0,
        le=3_600,
        description="Seconds in which hooks are told at most once that a document has changed.",
    )
    stamp_users: bool = Field(
        default=True,
        description=(
            "Write who a client is (the token's sub and name) into the field user of its awareness states, so that "
            "nobody poses as somebody else."
        ),
    )
    max_connections: int = Field(
        default=10_000, ge=0, le=1_000_000, description="WebSocket connections at a time; 0 for no bound."
    )
    max_connections_per_address: int = Field(
        default=1_000,
        ge=0,
        le=1_000_000,
        description=(
            "Connections at a time from one address (an IPv6 network of 64 bits counts as one; loopback is not "
            "counted); 0 for no bound."
        ),
    )
    max_connections_per_user: int = Field(
        default=200, ge=0, le=1_000_000, description="Connections at a time of one signed-in user; 0 for no bound."
    )
    max_connections_per_document: int = Field(
        default=5_000, ge=0, le=1_000_000, description="Connections at a time on one document; 0 for no bound."
    )
    max_new_connections_per_second: float = Field(
        default=50.0,
        ge=0,
        le=1_000_000,
        description=(
            "New WebSocket connections a second from one address, ten seconds' worth at once; 0 for no bound."
        ),
    )
    max_requests_per_second: float = Field(
        default=100.0,
        ge=0,
        le=1_000_000,
        description="Other HTTP requests a second from one address, ten seconds' worth at once; 0 for no bound.",
    )
    max_unauthenticated: int = Field(
        default=1_000,
        ge=0,
        le=1_000_000,
        description=(
            "Connections at a time that were not let in to a document. Past it those that have waited longest are "
            "closed with 1013; 0 for no bound."
        ),
    )
    max_unauthenticated_bytes: int = Field(
        default=5 * MIB,
        ge=1 * KIB,
        le=1 * GIB,
        description=(
            "Bytes that a Hocuspocus client may send for documents that it was not let in to yet; past it the "
            "connection is closed with 4205. Also the largest message of a client that may not write."
        ),
    )
    max_messages_per_second: float = Field(
        default=500.0,
        ge=0,
        le=1_000_000,
        description=(
            "Messages a second of one connection, ten seconds' worth at once; past it the connection is read more "
            "slowly. 0 for no bound."
        ),
    )
    max_bytes_per_second: int = Field(
        default=8 * MIB,
        ge=0,
        le=1_000 * GIB,
        description=(
            "Bytes a second from one connection, four seconds' worth at once; past it the connection is read more "
            "slowly. 0 for no bound."
        ),
    )
    max_awareness_per_second: float = Field(
        default=100.0,
        ge=0,
        le=1_000_000,
        description=(
            "Awareness messages a second of one connection, ten seconds' worth at once; past it the connection is "
            "read more slowly. 0 for no bound."
        ),
    )
    flood_seconds: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description=(
            "Seconds for which a connection may be read more slowly without a pause; then it is closed with 1013. "
            "0: it never is."
        ),
    )
    max_new_documents_per_minute: float = Field(
        default=60.0,
        ge=0,
        le=1_000_000,
        description=(
            "New documents a minute of one user, or of one address where nobody is signed in; 0 for no bound."
        ),
    )
    tenants: str = Field(
        default="off",
        description=(
            "How tenants are told apart, whose usage is counted: name (the part of a document's name before the first "
            "/), claim:NAME (a claim of the token of whoever creates the document), or off."
        ),
    )
    quota_documents: int | None = Field(
        default=None, ge=0, description="Documents that a tenant may have; needs --tenants."
    )
    quota_bytes_stored: int | None = Field(
        default=None, ge=0, description="Bytes that a tenant's documents may take; needs --tenants."
    )
    quota_bytes_sent: int | None = Field(
        default=None, ge=0, description="Bytes that may be sent to a tenant's clients in a month; needs --tenants."
    )
    quota_edits: int | None = Field(
        default=None, ge=0, description="Edits of a tenant's documents in a month; needs --tenants."
    )
    quota_connection_minutes: int | None = Field(
        default=None,
        ge=0,
        description="Minutes in a month for which a tenant's connections may be open, added up; needs --tenants.",
    )
    quota_connections: int | None = Field(
        default=None, ge=0, description="Connections that a tenant may have at a time and write; needs --tenants."
    )
    memory_mark_bytes: int | None = Field(
        default=None,
        ge=0,
        description=(
            "Memory of the process past which no documents are opened that are not open already. Without it, 70 "
            "percent of what the machine or the container has, divided by --workers; 0 for no mark."
        ),
    )
    memory_limit_bytes: int | None = Field(
        default=None,
        ge=0,
        description=(
            "Memory of the process past which no new connections are taken. Without it, 85 percent of what the "
            "machine or the container has, divided by --workers; 0 for no limit."
        ),
    )
    header_seconds: float = Field(
        default=15.0, gt=0, le=3_600, description="Seconds for the first HTTP request of a connection to be there."
    )
    http_idle_seconds: float = Field(
        default=75.0,
        gt=0,
        le=3_600,
        description="Seconds after an answer until the next HTTP request is there; more than a proxy keeps its own.",
    )
    sandbox_processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes for work on documents that may crash or hang; started when first needed.",
    )
    sandbox_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3_600,
        description="Seconds after which one job in such a process is given up and its process killed.",
    )
    sandbox_memory_bytes: int = Field(
        default=2 * GIB,
        ge=256 * MIB,
        description="Address space that such a process may take; a job that needs more fails, and nothing else.",
    )
    webhook_url: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="Address that is told what happens to documents; needs --webhook-secrets or --signing-keys.",
    )
    webhook_secrets: tuple[str, ...] = Field(
        default=(),
        repr=False,
        description=(
            "Secrets (whsec_..., collab webhooks secret makes one) that messages to --webhook-url are signed with, "
            "separated by commas: several while the receiver changes to a new one. Better as a variable."
        ),
    )
    webhooks_file: Path | None = Field(
        default=None, description="TOML file with receivers of webhooks, each with what it wants (docs/webhooks.md)."
    )
    webhook_interval_seconds: float = Field(
        default=10.0,
        ge=0,
        le=86_400,
        description="Seconds after an edit until receivers are told; what changes in them is told together.",
    )
    webhook_timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        le=60,
        description="Seconds within which a receiver has to answer; then it is tried again later.",
    )
    webhook_disable_days: float = Field(
        default=5.0,
        gt=0,
        le=365,
        description="Days in which a receiver may take nothing before nothing more is written for it.",
    )
    webhook_allow_http: bool = Field(
        default=False, description="Let addresses of receivers be plain http to other machines than this one."
    )
    webhook_public_only: bool = Field(
        default=False, description="Tell receivers at public addresses only, whatever their names are resolved to."
    )
    stall_limit_seconds: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description=(
            "Seconds for which the event loop may stand still; then the process ends with exit code 70, for whoever "
            "has started it to start it again. 0: it never ends for that. A stall of a second is logged with its stack."
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Least level of the log lines written to standard error: debug, info, warning or error.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="How log lines are written: text, or json for programs that collect them (one object a line).",
    )
    audit_log: Path | None = Field(
        default=None,
        description=(
            "File for the audit, one JSON object a line, instead of the log; it may be rotated. Commands that change "
            "or read what is stored append to it, too."
        ),
    )
    audit_sign_ins: bool = Field(
        default=True, description="Write into the audit who was let in to which document; else refusals alone."
    )

    trace_url: str | None = Field(
        default=None,
        repr=False,
        description=(
            "Send traces to a collector of OpenTelemetry, by OTLP over HTTP: http://127.0.0.1:4318/v1/traces. Needs "
            "the extra tracing."
        ),
    )
    trace_ratio: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the traces that is sent; a sender's own decision (traceparent) goes before it.",
    )

    if not TYPE_CHECKING:  # type checkers make the constructor of the fields, whose defaults must be named for that

        def __init__(self, **values: Any) -> None:
            """Take ``values`` by field name; raises ``ConfigurationError`` with a line for the first that is wrong."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise _explain(error, values) from None

    @classmethod
    def load(
        cls,
        flags: Mapping[str, object] | None = None,
        config: Path | str | None = None,
        environ: Mapping[str, str] | None = None,
        warn: Callable[[str], object] | None = None,
    ) -> Settings:
        """Read the options as the command line does: ``flags``, else the environment, else the file, else the defaults.

        Args:
            flags: values by field name that go before all others; ``None`` for one that is not given.
            config: a TOML file; without it the one that ``COLLAB_CONFIG`` names, if it names one.
            environ: ``COLLAB_...`` variables, by default those of the process. Some may be of others: those that
                Kubernetes sets for a service, and names that are like no option, are left out.
            warn: gets a line for each variable that was left out; by default the logger ``collab`` does.

        Raises:
            ConfigurationError: a name is near to an option's, a key of the file is unknown, the file cannot be read,
                or a value is out of its bounds. One line, which says where the value came from.
        """
        variables = _variables(
            os.environ if environ is None else environ, warn or partial(get_logger().warning, "options: %s")
        )
        named = variables.pop("config", None)
        config = config or named
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for key, value in {} if config is None else _read_file(Path(config)).items():
            if key not in cls.model_fields:
                raise ConfigurationError(f"unknown key {key!r} in {config}; {near(key, cls.model_fields) or _ALL}")
            values[key], sources[key] = value, f"{key} in {config}"
        for name, text in variables.items():
            values[name], sources[name] = text, env_of(name)
        for name, flag in (flags or {}).items():
            if flag is not None:
                values[name], sources[name] = flag, flag_of(name)
        try:
            return cls(**values)
        except ConfigurationError as error:
            # "name: what is wrong" becomes "where it was said: what is wrong".
            name, colon, rest = str(error).partition(": ")
            raise ConfigurationError(sources.get(name, name) + colon + rest) from None

    @field_validator("metrics_host")
    @classmethod
    def _without_brackets(cls, host: str) -> str:
        host = host.strip()
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not host:
            raise ValueError("is empty: 127.0.0.1 is this machine alone, 0.0.0.0 and :: are all its addresses")
        return host

    @field_validator("host", mode="before")
    @classmethod
    def _hosts_by_commas(cls, hosts: object) -> object:
        # Without any the server would be there for nobody, and would not say so.
        return hosts.split(",") if isinstance(hosts, str) else hosts or ("",)

    @field_validator("host")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(cls._without_brackets, hosts)))

    @field_validator(
        "trusted_proxies",
        "allowed_origins",
        "jwt_keys",
        "keep_deleted",
        "history_days_for",
        "hooks",
        "webhook_secrets",
        "signing_keys",
        mode="before",
    )
    @classmethod
    def _by_commas(cls, value: object) -> object:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
            if not value:
                raise ValueError("is empty")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked(lambda text: str(parse_network(text)), network) for network in networks)

    @field_validator("keep_deleted")
    @classmethod
    def _name_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not pattern or "*" in pattern[:-1]:
                raise ValueError(f"{pattern!r} is no name, nor the beginning of names with a * behind")
        return patterns

    @field_validator("history_days_for")
    @classmethod
    def _histories(cls, histories: tuple[str, ...]) -> tuple[str, ...]:
        for text in histories:
            pattern, _, days = text.rpartition("=")
            if not pattern or "*" in pattern[:-1]:
                raise ValueError(f"{text!r} does not begin with a name, or the beginning of names with a * behind")
            if not (days.isascii() and days.isdecimal() and int(days) <= _MOST_DAYS):
                raise ValueError(f"{text!r} does not end with = and a whole number of days, up to {_MOST_DAYS}")
        return histories

    @field_validator("tenants")
    @classmethod
    def _tenants(cls, text: str) -> str:
        kind, colon, claim = text.partition(":")
        if text not in ("off", "name") and not (kind == "claim" and colon and claim.strip()):
            raise ValueError("is off, name or claim:NAME")
        return text

    @field_validator("hooks")
    @classmethod
    def _places_of_hooks(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        for place in places:
            module, colon, name = place.partition(":")
            if not colon or not all(part.isidentifier() for text in (module, name) for part in text.split(".")):
                raise ValueError(f"{place!r} is no MODULE:NAME")
        return places

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(origin if origin == ANY else _checked(normal_origin, origin) for origin in origins)

    @field_validator("audit_log", "jwks_file", "tls_cert", "tls_key", "webhooks_file", mode="before")
    @classmethod
    def _named(cls, path: object) -> object:
        if path == "":
            raise ValueError("is empty")  # it would be the directory
        return path

    @field_validator("data_dir")
    @classmethod
    def _at_home(cls, data_dir: Path) -> Path:
        return data_dir.expanduser()

    @field_validator("audit_log", "jwks_file", "tls_cert", "tls_key", "webhooks_file")
    @classmethod
    def _path_at_home(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _any_case(cls, word: object) -> object:
        return word.lower() if isinstance(word, str) else word

    @property
    def quotas(self) -> dict[str, int]:
        """The default quotas of tenants, by their names; what is missing has no bound."""
        found = {name: getattr(self, f"quota_{name}") for name in QUOTAS}
        return {name: bound for name, bound in found.items() if bound is not None}

    @property
    def on_loopback(self) -> bool:
        """Whether all of ``host`` is reached from this machine alone."""
        return all(is_loopback(host) for host in self.host)

    def check_metrics(self) -> None:
        """Check where metrics are listened on.

        Raises:
            ConfigurationError: that contradicts other options.
        """
        if self.metrics_port is None:
            if "metrics_host" in self.model_fields_set:
                raise ConfigurationError("--metrics-host goes with --metrics-port")
            return
        last = self.metrics_port + self.workers - 1
        if self.metrics_port and last > _LAST_PORT:
            raise ConfigurationError(
                f"--metrics-port {self.metrics_port} leaves too few ports behind it for {self.workers} workers"
            )
        if not self.port or not any(overlap(host, self.metrics_host) for host in self.host):
            return
        if self.metrics_port == self.port:
            raise ConfigurationError(
                f"--metrics-port and --port are both {self.port}: give metrics another port, or leave --metrics-port "
                "out to read them on --port with a token"
            )
        if 0 < self.metrics_port < self.port <= last:
            raise ConfigurationError(
                f"--port {self.port} is among the ports for metrics of {self.workers} workers, {self.metrics_port} to "
                f"{last}: choose another --metrics-port"
            )

    def check_exposure(self, authenticated: bool) -> None:
        """Check that nothing is open by accident: who may reach the server, and what protects it then.

        Raises:
            ConfigurationError: something is missing; the line says what to set.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("--tls-cert and --tls-key go together")
        if self.behind_proxy and not self.trusted_proxies:
            raise ConfigurationError(
                "--behind-proxy needs --trusted-proxies, the addresses of the proxies: anybody else could write the "
                "same headers"
            )
        if self.trusted_proxies and not self.behind_proxy:
            raise ConfigurationError("--trusted-proxies goes with --behind-proxy")
        if self.insecure:
            return
        if not authenticated and self.behind_proxy:
            raise ConfigurationError(
                "behind a proxy without authentication whoever reaches the proxy may read and change every document: "
                f"{SET_AUTHENTICATION}, or say --insecure"
            )
        reached = next((host for host in self.host if not is_loopback(host)), None)
        if not authenticated and reached is not None:
            raise ConfigurationError(
                f"{reached!r} is not a loopback address (127.0.0.1, ::1, localhost), and without authentication "
                f"whoever reaches it may read and change every document: {SET_AUTHENTICATION}, or say --insecure"
            )
        if reached is not None and self.tls_cert is None and not self.behind_proxy:
            raise ConfigurationError(
                f"{reached!r} is not a loopback address, and without TLS whoever is on the way may read tokens and "
                "documents: set --tls-cert and --tls-key, or --behind-proxy with --trusted-proxies for a proxy that "
                "ends TLS, or say --insecure"
            )


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
            kind="URL" if name in _URLS else _KINDS.get(field.annotation, "TEXT"),
            description=field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


_KINDS: dict[object, str] = {
    int: "INTEGER",
    int | None: "INTEGER",
    float: "NUMBER",
    bool: "",
    Path: "PATH",
    Path | None: "PATH",
    tuple[Path, ...]: "PATH,...",
    tuple[str, ...]: "TEXT,...",
}


def _shown(name: str, default: object) -> str:
    if default is None or default == ():
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, int) and "_bytes" in name:
        size, unit = next((size, unit) for size, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")) if default >= size)
        return f"{default} ({default // size} {unit})"
    return str(default)


def flag_of(name: str) -> str:
    """Give the flag of the option ``name``."""
    return "--" + name.replace("_", "-")


def env_of(name: str) -> str:
    """Give the environment variable of the option ``name``."""
    return ENV_PREFIX + name.upper()


def _variables(environ: Mapping[str, str], warn: Callable[[str], object]) -> dict[str, str]:
    """Take what ``environ`` says of options, by field name, and the file that it names; tells ``warn`` of the rest.

    Raises:
        ConfigurationError: a name is near to an option's, or the value of an option that must not be empty is.
    """
    found = {}
    for key, value in environ.items():
        if not key.startswith(ENV_PREFIX):
            continue
        name = key[len(ENV_PREFIX) :].lower()
        unknown = key != CONFIG_ENV and name not in Settings.model_fields
        if _from_kubernetes(key, value, unknown):
            warn(f"{key} in the environment is not used: {_KUBERNETES}")
        elif unknown and (likely := near(key, map(env_of, Settings.model_fields), ENV_PREFIX)):
            raise ConfigurationError(f"unknown variable {key} in the environment; {likely}")
        elif unknown:
            warn(f"{key} in the environment is not used: there is no such option ({_ALL})")
        elif value:
            found[name] = value
        elif name in _NEVER_EMPTY:
            raise ConfigurationError(f"{key} is empty: give it a value, or unset it if it is not to be used")
    return found


def near(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Say which of ``known`` look like ``name``, without ``prefix``: ``did you mean a or b?``; empty if none does."""
    by_core = {_core(candidate, prefix): candidate for candidate in known}
    core = _core(name, prefix)
    close = [core] if core in by_core else difflib.get_close_matches(core, by_core, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(by_core[match] for match in close)}?"
    return ""


def _core(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("-", "_")


def _checked(read: Callable[[str], str], text: str) -> str:
    """Read one entry of a list, with an error that pydantic passes on."""
    try:
        return read(text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # The parser's message has line and column and never the text itself, which may be a password.
        raise ConfigurationError(f"{path} is not TOML: {error}") from None


def _from_kubernetes(key: str, value: str, unknown: bool) -> bool:
    """Tell whether a variable is one of those that Kubernetes sets for a service, such as NAME_PORT.

    It may have an option's name: for a service called collab there is COLLAB_PORT, which is ``tcp://10.0.0.7:1234``.
    """
    if key.endswith("_PORT") and _SERVICE_URL.fullmatch(value):
        return True
    return unknown and _SERVICE_VARIABLE.search(key) is not None


def _explain(error: ValidationError, values: Mapping[str, object]) -> ConfigurationError:
    """Make one line of pydantic's first complaint: the field, what is wanted and, if not secret, what was given."""
    first = error.errors(include_url=False, include_context=True)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        return ConfigurationError(f"unknown option {name!r}; {near(name, Settings.model_fields) or _ALL}")
    if first["type"] == "value_error":
        return ConfigurationError(f"{name}: {first['ctx']['error']}")
    wanted = first["msg"].replace("Input should be ", "must be ", 1)
    wanted = wanted.partition(", unable to ")[0]
    field = Settings.model_fields.get(name)
    if field is None or name in _SECRET:
        return ConfigurationError(f"{name}: {wanted}")
    return ConfigurationError(f"{name}: {wanted}, not {values.get(name)!r}")
