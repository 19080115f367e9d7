"""The commands that make tokens and keys, for trying things out; an application makes its own.

Strategy: a token is made from the same claims and checked by the same code as the server's
(``claims.read_documents``), so a token that this prints is one that a server with that key takes.
Private keys are written for their owner alone and never over a file that is there.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from collab.errors import CollabError, ConfigurationError, Unauthenticated

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

SECRET_ENV = "COLLAB_JWT_SECRET"

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}

_SECRET_BYTES = 32

_Algorithm = Literal["EdDSA", "ES256", "RS256", "HS256"]


def token(
    user: Annotated[str, typer.Option(metavar="ID", help="Who the bearer is: the claim sub.")],
    document: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=ACCESS",
            help=(
                "What it may do: read, write or admin, with one document or, with a * at the end of NAME, with all "
                "that begin so. May be given several times."
            ),
        ),
    ],
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What others are shown of it.")] = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long it is good: 90s, 15m, 1h, 7d.")] = "1h",
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Private key to sign with: PEM or JWK.", show_default=False)
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar=SECRET_ENV,
            help="Shared secret to sign with. Others can see it in the list of processes: the variable is better.",
            show_default=False,
        ),
    ] = None,
    kid: Annotated[str | None, typer.Option(metavar="TEXT", help="Name of the key. A JWK brings its own.")] = None,
    issuer: Annotated[str | None, typer.Option(metavar="TEXT", help="The claim iss.")] = None,
    audience: Annotated[str | None, typer.Option(metavar="TEXT", help="The claim aud.")] = None,
) -> None:
    """Print a token for trying things out. The server must have the secret, or the public part of the key."""
    from collab.auth.claims import ClaimRules, read_claims

    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": user,
        "name": name,
        "documents": _documents(document),
        "iat": now,
        "exp": now + _duration(expires),
        "iss": issuer,
        "aud": audience,
    }
    claims = {claim: value for claim, value in claims.items() if value is not None}
    try:
        read_claims(claims, ClaimRules(issuer, audience), now)
    except Unauthenticated as error:
        raise ConfigurationError(error.public) from None
    print(_signed(claims, key, secret, kid))


def keygen(
    algorithm: Annotated[_Algorithm, typer.Option(help="What it signs: EdDSA, ES256, RS256 or HS256.")] = "EdDSA",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PREFIX",
            help="Write PREFIX.private.pem and PREFIX.public.pem (PREFIX.secret for HS256) instead of printing them.",
            show_default=False,
        ),
    ] = None,
    jwk: Annotated[
        bool, typer.Option("--jwk", help="As JSON Web Keys with a kid, which rotation needs: .jwk and .jwks.json.")
    ] = False,
) -> None:
    """Make a key: the private part is for the application, which makes tokens, the public one for the server."""
    from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

    if algorithm == "HS256":
        if jwk:
            raise ConfigurationError("a secret has no public part to put into a JWK set: leave out --jwk")
        # As text, because every library takes a text for the secret, and not all decode base64 the same way.
        text = OctKey.generate_key(_SECRET_BYTES * 8).as_dict(private=True)["k"]
        _give({"secret": (f"{text}\n", True)}, out)
        return
    made: ECKey | OKPKey | RSAKey
    if algorithm == "EdDSA":
        made = OKPKey.generate_key("Ed25519")
    elif algorithm == "ES256":
        made = ECKey.generate_key("P-256")
    else:
        made = RSAKey.generate_key(2_048)
    if jwk:
        facts = {"kid": made.thumbprint(), "alg": algorithm, "use": "sig"}
        private = {**made.as_dict(private=True), **facts}
        public = {"keys": [{**made.as_dict(private=False), **facts}]}
        _give({"jwk": (_json(private), True), "jwks.json": (_json(public), False)}, out)
    else:
        private_pem, public_pem = made.as_pem(private=True).decode(), made.as_pem().decode()
        _give({"private.pem": (private_pem, True), "public.pem": (public_pem, False)}, out)


def register(app: typer.Typer) -> None:
    """Add both commands to ``app``."""
    app.command()(token)
    app.command()(keygen)


def _documents(given: list[str]) -> dict[str, str]:
    documents: dict[str, str] = {}
    for text in given:
        name, equals, access = text.rpartition("=")  # a name may hold "="
        if not equals or not name or not access:
            raise ConfigurationError(f"--document takes NAME=ACCESS, as in 'notes/*=write', and not {text!r}")
        documents[name] = access
    return documents


def _duration(text: str) -> int:
    """Read ``90s``, ``15m``, ``1h``, ``7d`` or plain seconds."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd]?)", text)
    if match is None:
        raise ConfigurationError(f"--expires takes a time like 90s, 15m, 1h or 7d, and not {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def _signed(claims: dict[str, Any], file: Path | None, secret: str | None, kid: str | None) -> str:
    from collab.auth.jwt import sign
    from collab.auth.signing import load_private_key

    if file is None and secret is None:
        raise ConfigurationError(f"a token needs a signature: give --key FILE, or --secret (better {SECRET_ENV})")
    signing: ECKey | OctKey | OKPKey | RSAKey
    if file is not None:
        # A secret in the environment does not keep --key from being meant.
        signing, algorithm = load_private_key(file)
        kid = kid if kid is not None else signing.kid
    else:
        from joserfc.jwk import OctKey

        from collab.auth.keys import secret_key

        checked = secret_key(secret or "").value
        assert isinstance(checked, OctKey)
        signing, algorithm = checked, "HS256"

    return sign(claims, signing, algorithm, kid)


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _give(parts: dict[str, tuple[str, bool]], out: Path | None) -> None:
    """Print the parts or write each to ``out`` with its suffix; those marked True for their owner alone."""
    if out is None:
        print("".join(text for text, _ in parts.values()), end="")
        return
    paths = {Path(f"{out}.{suffix}"): part for suffix, part in parts.items()}
    for path, (text, private) in paths.items():
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise CollabError(f"{path} is there already; a key is never written over another") from None
        except OSError as error:
            raise CollabError(f"cannot write {path}: {error.strerror or error}") from None
        print(path)
