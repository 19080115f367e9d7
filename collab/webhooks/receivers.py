"""The receivers of webhooks, as an operator writes them down.

Strategy: one receiver is given by options; several, each with what it wants, stand in a file of their own, because they
have secrets. Both give the same values, which are checked here, and never say a secret again.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from collab.content.edits import Format
from collab.errors import ConfigurationError
from collab.storage.webhooks import KINDS, Subscription
from collab.webhooks.signing import read_secret

DEFAULT_NAME: Final = "default"
"""The receiver that the options give."""

MAX_RECEIVERS: Final = 16
MAX_SECRETS: Final = 5

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_FILE: Final = 64 * 1024
_MAX_PREFIX: Final = 512


@dataclass(frozen=True, slots=True)
class Receiver:
    """One receiver.

    Attributes:
        name: in logs, the API and the command line.
        url: where it is told.
        keys: secrets that its messages are signed with, one signature for each.
        kinds: of the events that it wants.
        prefix: how names of documents begin that it wants to be told of.
        content: the format of the content that it is sent, if it wants any.
        root: of which root, if not of all.
    """

    name: str
    url: str = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)
    kinds: tuple[str, ...] = KINDS
    prefix: str = ""
    content: Format | None = None
    root: str | None = None

    @property
    def subscription(self) -> Subscription:
        """What the storage has to know of it."""
        return Subscription(self.name, self.kinds, self.prefix)


class _Entry(BaseModel):
    """One ``[[receiver]]`` of the file."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    name: str
    url: str = Field(min_length=1, max_length=4_096)
    secrets: list[str] = Field([], max_length=MAX_SECRETS)
    events: list[str] = Field(list(KINDS), min_length=1)
    prefix: str = Field("", max_length=_MAX_PREFIX)
    content: str | None = None
    root: str | None = Field(None, max_length=_MAX_PREFIX)

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("is 1 to 64 of a-z, 0-9, dot, dash and underscore, and begins with a letter or a digit")
        return name

    @field_validator("events")
    @classmethod
    def _known(cls, events: list[str]) -> list[str]:
        for event in events:
            if event not in KINDS:
                raise ValueError(f"holds an event that there is not; there are {', '.join(KINDS)}")
        return list(dict.fromkeys(events))

    @field_validator("content")
    @classmethod
    def _format(cls, content: str | None) -> str | None:
        known = [format.value for format in Format]
        if content is not None and content not in known:
            raise ValueError(f"is one of {', '.join(known)}")
        return content


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    receiver: list[_Entry] = Field(min_length=1, max_length=MAX_RECEIVERS)


def read_keys(secrets: Sequence[str], option: str, *, signed: bool = False) -> tuple[bytes, ...]:
    """Read secrets; ``signed`` says that the server has keys of its own, and then there may be none.

    Raises ``ConfigurationError`` that says which one is wrong, and does not show it.
    """
    if not secrets and not signed:
        raise ConfigurationError(
            f"{option} has no secret, and the server has no key: give secrets, as collab webhooks secret makes them, "
            "or --signing-keys"
        )
    if len(secrets) > MAX_SECRETS:
        raise ConfigurationError(f"{option} has {len(secrets)} secrets; at most {MAX_SECRETS} are taken")
    keys = []
    for number, secret in enumerate(secrets, 1):
        try:
            keys.append(read_secret(secret.strip()))
        except ValueError as error:
            raise ConfigurationError(
                f"secret {number} of {option} is none: it {error}; collab webhooks secret makes one"
            ) from None
    return tuple(keys)


def read_file(path: Path, *, signed: bool = False) -> list[Receiver]:
    """Read the receivers of a file; ``signed`` as for ``read_keys``.

    Raises ``ConfigurationError``, which shows no secret.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read --webhooks-file {path}: {error.strerror or error}") from None
    if len(data) > _MAX_FILE:
        raise ConfigurationError(f"--webhooks-file {path} has more than {_MAX_FILE} bytes")
    try:
        found = _File.model_validate(tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--webhooks-file {path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"--webhooks-file {path}: {place}: {reason}") from None
    receivers = [
        Receiver(
            entry.name,
            entry.url,
            read_keys(entry.secrets, f"the receiver {entry.name!r} in {path}", signed=signed),
            tuple(entry.events),
            entry.prefix,
            None if entry.content is None else Format(entry.content),
            entry.root,
        )
        for entry in found.receiver
    ]
    if len({receiver.name for receiver in receivers}) < len(receivers):
        raise ConfigurationError(f"--webhooks-file {path} has two receivers of one name")
    return receivers


def read_receivers(
    url: str | None, secrets: Sequence[str], path: Path | None, *, signed: bool = False
) -> list[Receiver]:
    """Give the receivers that the options and the file name; raises ``ConfigurationError``.

    ``signed`` says that the server has keys of its own, which sign what they are told: then secrets may be missing.
    """
    receivers = [] if path is None else read_file(path, signed=signed)
    if url is not None:
        if any(receiver.name == DEFAULT_NAME for receiver in receivers):
            raise ConfigurationError(
                f"--webhook-url is the receiver {DEFAULT_NAME!r}, and --webhooks-file has one of that name, too"
            )
        receivers.append(Receiver(DEFAULT_NAME, url, read_keys(secrets, "--webhook-secrets", signed=signed)))
    elif secrets:
        raise ConfigurationError("--webhook-secrets goes with --webhook-url")
    return receivers
