"""What the modules of the command line share: options as flags, the database, telling running servers.

Strategy: the options come from ``Settings`` (``with_settings`` makes flags of its fields), so they are not written
twice; what a command needs is imported when it runs, so that ``collab version`` does not wait for a database driver.
"""

from __future__ import annotations

import contextlib
import getpass
import inspect
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Protocol, TypeVar

import typer

from collab.audit import Act, Outcome, Who, acting
from collab.audit.entries import encode_entry, make_entry
from collab.errors import CollabError, ConfigurationError
from collab.loop import run_loop
from collab.settings import Option, Settings, options
from collab.telemetry import complain, configure, escape_controls, get_logger

if TYPE_CHECKING:
    from collab.storage.store import Store
    from collab.storage.urls import DatabaseUrl
    from collab.transports.http.api.importing import Failure

_Result = TypeVar("_Result")
_Store = TypeVar("_Store", bound="Store")

DATABASE = ("database_url", "data_dir", "log_level", "log_format")
AUDIT = ("audit_log",)
"""The option of the commands that change what is stored, or read it; they call ``audited``."""

BUS = ("listen_url", "redis_url")
"""The options of the commands that work on the database directly."""

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The document's name.")]


def with_settings(
    *names: str, unreadable: Callable[[ConfigurationError, dict[str, Any]], Any] | None = None
) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]:
    """Give a command the flags of the options ``names`` (none: all of them) and ``--config``.

    The command's first parameter is the ``Settings`` read from flags, environment, file and defaults;
    its others stay arguments and options of its own. Where the options cannot be read, ``unreadable`` is called in
    place of the command, if it is given, with the command's other arguments.
    """

    def decorate(command: Callable[..., _Result]) -> Callable[..., _Result]:
        listed = [option for option in options() if not names or option.name in names]
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        def call(**given: Any) -> _Result:
            config = given.pop("config")
            flags = {option.name: _joined(given.pop(option.name)) for option in listed}
            warnings: list[str] = []
            try:
                settings = Settings.load(flags, config, warn=warnings.append)
            except ConfigurationError as error:
                if unreadable is None:
                    raise
                result: _Result = unreadable(error, given)
                return result
            configure(settings.log_level, format=settings.log_format)
            for line in warnings:
                get_logger().warning("options: %s", line)
            return command(settings, **given)

        # Typer reads the signature, so the flags are made by writing one.
        parameters = [*own, *(_parameter(option) for option in listed), _CONFIG]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        call.__name__ = command.__name__
        call.__doc__ = command.__doc__
        return call

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    """Make the flag of one option. Its value stays text: ``Settings`` checks it, with one wording for all sources.

    A list may be given by several flags of one name too.
    """
    switch = not option.kind
    info = typer.Option(
        f"{option.flag}/--no-{option.flag[2:]}" if switch else option.flag,
        help=f"{option.description} [{option.env}{f', default {option.default}' if option.default else ''}]",
        show_default=False,
        metavar=option.kind or None,
    )
    kind = bool | None if switch else list[str] | None if option.kind.endswith(",...") else str | None
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, info]
    )


def _joined(value: object) -> object:
    """Give what several flags of one list say as one of them would say it."""
    return (",".join(value) if value else None) if isinstance(value, list) else value


_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            "--config", metavar="FILE", help="TOML file with options, by their names with underscores. [COLLAB_CONFIG]"
        ),
    ],
)


@contextlib.contextmanager
def audited(settings: Settings, act: Act) -> Iterator[Act]:
    """Do something on the database, then append an entry of how it has ended to --audit-log, if that is given.

    A file that cannot be opened ends the command before anything is done.

    Raises:
        ConfigurationError: it cannot be opened.
        CollabError: it was done, and cannot be written.
    """
    if settings.audit_log is None:
        yield act
        return
    from collab.audit.file import AuditFile

    file = AuditFile(settings.audit_log)
    try:
        file.open()
    except OSError as error:
        raise ConfigurationError(f"--audit-log {file.path} cannot be opened: {error.strerror or error}") from None
    who = Who(protocol="command", login=_login())

    def write(act: Act, outcome: Outcome) -> None:
        entry = make_entry(time.time(), 1, act.kind, outcome, act.detail, who, act.document, act.target)
        try:
            file.append(encode_entry(entry, None))
        except OSError as error:
            text = f"it was done ({outcome}), and --audit-log {file.path} cannot be written: {error.strerror or error}"
            raise CollabError(text) from None

    try:
        with acting(act, write):
            yield act
    finally:
        file.close()


def _login() -> str:
    """Name the user of the operating system, whatever the environment says; by its number where it has no name."""
    try:
        import pwd
    except ImportError:  # Windows
        return getpass.getuser()
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def database_of(settings: Settings) -> DatabaseUrl:
    from collab.storage.urls import parse_database_url

    return parse_database_url(settings.database_url, settings.data_dir)


def with_store(settings: Settings, work: Callable[[Store], Awaitable[None]], *, create: bool = False) -> None:
    """Run ``work`` on the open store; with ``create`` a SQLite file is made and migrated first, as by ``serve``."""
    from collab.adapters import make_store

    with_database(settings, make_store, work, create=create)


def with_database(
    settings: Settings,
    make: Callable[[DatabaseUrl], _Store],
    work: Callable[[_Store], Awaitable[None]],
    *,
    create: bool = False,
) -> None:
    from collab.storage.migrate import upgrade

    url = database_of(settings)
    if url.path is not None:
        if create:
            upgrade(url)
        elif not url.path.exists():
            # SQLite would make an empty file out of a misspelt name.
            raise ConfigurationError(f"there is no database {url.path}; collab serve and collab migrate make one")

    async def inside() -> None:
        store = make(url)
        try:
            await store.open()
            await work(store)
        finally:
            await store.close()

    run_loop(inside())


class Step(Protocol):
    """Moves a bar on."""

    def __call__(self, text: str, *, to: int | None = None) -> None:
        """Move it on by one, or to where it stands then, and show a text beside it."""
        ...


@contextlib.contextmanager
def progress(total: int, *, hidden: bool) -> Iterator[Step]:
    """Show a bar on a terminal's standard error; give the function that moves it on."""
    if hidden or not sys.stderr.isatty():
        yield lambda text, *, to=None: None
        return
    done = 0

    def step(text: str, *, to: int | None = None) -> None:
        nonlocal done
        done = done + 1 if to is None else to
        filled = _BAR * done // max(total, done, 1)
        bar = "#" * filled + "-" * (_BAR - filled)
        print(
            f"\r[{bar}] {done} of {max(total, done)}  {escape_controls(text)[:30]:30}",
            end="",
            file=sys.stderr,
            flush=True,
        )

    yield step
    print(file=sys.stderr)


_BAR = 30
"""Characters of a progress bar."""


@contextlib.contextmanager
def bytes_read(total: int | None, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how much of a file was read, and how much it held of what; of a pipe that alone."""
    read = 0
    with progress(total or 0, hidden=False) as show:

        def step(nbytes: int, count: int) -> None:
            nonlocal read
            read += nbytes
            show(f"{count} {what}", to=read if total else None)

        yield step


class Imported(Protocol):
    """What the commands tell of an import, of documents or of versions."""

    created: int
    existed: int
    failed: int
    failures: list[Failure]


def imported(done: Imported, what: str) -> str:
    """Say what has become of an import; ``what`` as in "documents created"."""
    return f"{done.created} {what}, {done.existed} were there already, {done.failed} failed"


def complain_of(done: Imported, what: str) -> None:
    """Tell what has failed since the last time; each is a ``what``."""
    for failure in done.failures:
        name = "" if failure.name is None else f" ({failure.name})"
        complain(f"{what} {failure.line}{name}: {failure.code}: {failure.detail}")
    done.failures.clear()


def shown_file(file: str, *, out: bool = False) -> str:
    """Name a file to people."""
    return file if file != "-" else "standard output" if out else "standard input"


@contextlib.contextmanager
def output_file(file: str, *, private: bool = False) -> Iterator[Callable[[bytes], object]]:
    """Give the function that writes to a file; a regular file appears under its name only when it is whole.

    ``private``: nobody else of the machine may read it.
    """
    if file == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    path = Path(os.path.realpath(file))  # a link stays, what it points to is replaced
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as device:  # or a pipe
                yield device.write
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}.", delete=False) as part:
            try:
                yield part.write
                part.close()
                # The temporary file is private; the export gets the rights that any new file would have.
                if not private:
                    os.umask(mask := os.umask(0o077))
                    os.chmod(part.name, 0o666 & ~mask)
                os.replace(part.name, path)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError as error:
        raise CollabError(f"cannot write {file}: {error.strerror or error}") from None


@contextlib.contextmanager
def input_file(file: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a file, and tell its size if it has one."""
    if file == "-":
        yield sys.stdin.buffer, None
        return
    try:
        with Path(file).open("rb") as source:
            status = os.fstat(source.fileno())
            yield source, status.st_size if Path(file).is_file() else None
    except OSError as error:
        raise CollabError(f"cannot read {file}: {error.strerror or error}") from None


@contextlib.asynccontextmanager
async def telling_nodes(settings: Settings) -> AsyncIterator[Callable[[Iterable[str]], None]]:
    """Give a function that lets running servers look at documents; one on SQLite looks by itself.

    Change what they are to see inside: then they are told at once.
    """
    from collab.adapters import make_bus
    from collab.cluster.tell import telling

    url = database_of(settings)
    if url.backend != "postgresql":
        yield lambda _: None
        return
    async with telling(make_bus(url, settings.listen_url, settings.redis_url)) as tell:
        yield tell
