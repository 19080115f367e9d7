"""What operators write down about receivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from collab.content.edits import Format
from collab.errors import ConfigurationError
from collab.storage.webhooks import KINDS
from collab.webhooks.receivers import MAX_RECEIVERS, Receiver, read_receivers
from tests.support.webhooks import OTHER, SECRET

URL = "https://app.example/hooks?key=s3cret"

WHOLE = f"""
[[receiver]]
name = "search"
url = "{URL}"
secrets = ["{SECRET}", "{OTHER}"]
events = ["document.changed", "document.deleted", "document.changed"]
prefix = "notes/"
content = "markdown"
root = "default"

[[receiver]]
name = "audit"
url = "https://audit.example"
secrets = ["{SECRET}"]
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "receivers.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_gives_receivers_with_what_they_want(tmp_path: Path) -> None:
    search, audit = read_receivers(None, (), write(tmp_path, WHOLE))
    assert (search.name, search.url, search.keys) == ("search", URL, (b"s" * 32, b"o" * 24))
    assert search.kinds == ("document.changed", "document.deleted") and search.prefix == "notes/"
    assert (search.content, search.root) == (Format.MARKDOWN, "default")
    assert audit == Receiver("audit", "https://audit.example", (b"s" * 32,))
    assert audit.subscription.kinds == KINDS and audit.subscription.wants("user.left", "any")
    assert "s3cret" not in repr(search) and "ssss" not in repr(search)


def test_options_give_one_more(tmp_path: Path) -> None:
    assert read_receivers(None, (), None) == []
    (one,) = read_receivers(URL, (SECRET, f" {OTHER} "), None)
    assert (one.name, one.keys, one.kinds) == ("default", (b"s" * 32, b"o" * 24), KINDS)
    assert [each.name for each in read_receivers(URL, (SECRET,), write(tmp_path, WHOLE))] == [
        "search",
        "audit",
        "default",
    ]


def entry(**given: str) -> str:
    values = {"name": '"a"', "url": '"https://a.example"', "secrets": f'["{SECRET}"]', **given}
    return "[[receiver]]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "receiver"),
        ("receiver = 1", "receiver"),
        ("[[receiver]", "is not TOML"),
        (entry(name='"A b"'), "receiver.0.name: is 1 to 64"),
        (entry(name='""'), "receiver.0.name"),
        (entry(url='""'), "receiver.0.url"),
        (entry(secrets="[]"), "the receiver 'a' in .* has no secret, and the server has no key"),
        (entry(secrets=str([SECRET] * 6)), "receiver.0.secrets"),
        (entry(secrets='["whsec_c2VjcmV0"]'), "secret 1 of the receiver 'a'.*24 to 64 bytes"),
        (entry(events="[]"), "receiver.0.events"),
        (entry(events='["document.opened"]'), "an event that there is not; there are document.created"),
        (entry(content='"pdf"'), "receiver.0.content: is one of json, text"),
        (entry(prefix="1"), "receiver.0.prefix"),
        (entry(timeout="1"), "receiver.0.timeout"),
        (entry() + entry(), "two receivers of one name"),
        ("".join(entry(name=f'"a{number}"') for number in range(MAX_RECEIVERS + 1)), "at most 16"),
        ("# " + "x" * 70_000, "more than 65536 bytes"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        read_receivers(None, (), write(tmp_path, text))
    assert "\n" not in str(caught.value) and "c2Vj" not in str(caught.value)


def test_where_the_server_signs_with_a_key_of_its_own_secrets_may_be_missing(tmp_path: Path) -> None:
    without = write(tmp_path, '[[receiver]]\nname = "a"\nurl = "https://a.example"\n' + entry(name='"b"'))
    a, b, default = read_receivers(URL, (), without, signed=True)
    assert (a.keys, default.keys) == ((), ()) and b.keys
    with pytest.raises(ConfigurationError, match="the receiver 'a' in .* has no secret"):
        read_receivers(None, (), without)


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--webhook-secrets has no secret, and the server has no key"):
        read_receivers(URL, (), None)
    with pytest.raises(ConfigurationError, match="--webhook-secrets has 6 secrets; at most 5"):
        read_receivers(URL, (SECRET,) * 6, None)
    with pytest.raises(ConfigurationError, match="secret 2 of --webhook-secrets is none"):
        read_receivers(URL, (SECRET, "s3cret"), None)
    with pytest.raises(ConfigurationError, match="goes with --webhook-url"):
        read_receivers(None, (SECRET,), None)
    with pytest.raises(ConfigurationError, match="'default'"):
        read_receivers(URL, (SECRET,), write(tmp_path, entry(name='"default"')))
    with pytest.raises(ConfigurationError, match="cannot read --webhooks-file"):
        read_receivers(None, (), tmp_path / "none.toml")
