"""What docs/security.md tells people to write is a token that the server takes, and a hook that it asks."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from collab.auth.access import AccessRequest
from collab.auth.factory import AuthOptions, make_authenticator
from collab.errors import Unauthenticated
from collab.protocol.session import Access
from tests.auth.makers import SECRET
from tests.support.snippets import snippet

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text(encoding="utf-8")


def run(text: str) -> dict[str, Any]:
    """Run a snippet that begins with the name of the file it belongs into; give what it has defined."""
    name = text.partition("\n")[0].removeprefix("# ")
    values: dict[str, Any] = {"__name__": name.removesuffix(".py")}
    exec(compile(text, f"docs/security.md: {name}", "exec"), values)
    return values


async def test_the_token_of_the_python_examples_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAB_JWT_SECRET", SECRET)
    token = run(snippet("docs/security.md", "2. A route that issues tokens", "python"))["collab_token"](
        "17", "Ada", {"team-a/*": "write"}
    )
    made = make_authenticator(AuthOptions(secret=SECRET))
    assert made is not None
    grant = await made.authenticate(AccessRequest(token, "team-a/plan", "127.0.0.1"))
    assert (grant.access, grant.user, grant.name) == (Access.WRITE, "17", "Ada")


async def test_the_function_of_the_embedding_example_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    users = ModuleType("users")
    ada = SimpleNamespace(id="17", name="Ada", session_ends=time.time() + 60)
    users.user_of_session = {"session-1": ada}.get  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users", users)
    monkeypatch.chdir(tmp_path)
    authenticate = run(snippet("docs/security.md", "A Python function", "python"))["authenticate"]
    assert (await authenticate(AccessRequest("session-1", "team-a/plan", "127.0.0.1"))).user == "17"
    with pytest.raises(Unauthenticated) as refused:
        await authenticate(AccessRequest("session-2", "team-a/plan", "127.0.0.1"))
    assert refused.value.public == "sign in again"


def test_what_the_document_says_clients_are_told_is_what_they_are_told() -> None:
    table = TEXT[TEXT.index("| the client is told |") :].partition("\n## ")[0]
    told = [row.split("|")[1].strip().removesuffix(" ...") for row in table.splitlines()[2:] if row.startswith("|")]
    places = Path(sys.modules["collab.auth"].__path__[0]).glob("*.py")
    code = "\n".join(path.read_text(encoding="utf-8") for path in places) + (
        Path(sys.modules["collab.errors"].__file__ or "").read_text(encoding="utf-8")
    )
    assert len(told) == 13
    for text in told:
        assert text.replace("RS256", "{header.algorithm}") in code, text
