"""How the command line shows servers."""

from __future__ import annotations

import json

import pytest

from collab.cli.nodes import print_nodes
from collab.storage.membership import Node
from tests.support.snippets import snippet

ONE = Node("one-1a", "http://10.0.0.5:1234", "1.2.3", "postgresql", "{}", 7, 12, 5.0, 1.7e9, 1.7e9 + 60, 2.4)
TWO = Node("two-\x1b[31m", "", "1.2.2", "redis", "{}", 0, 0, 5.0, 1.7e9 + 1, 1.7e9 + 2, 3_000.0)


def test_a_line_for_each_and_one_that_died_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    print_nodes([ONE, TWO], as_json=False)
    head, one, two = capsys.readouterr().out.splitlines()
    assert head.split() == (
        ["STATE", "SINCE", "HEARTBEAT", "DOCUMENTS", "CONNECTIONS", "BUS", "VERSION", "NAME", "ADDRESS"]
    )
    assert one.split() == (
        [
            "alive",
            "2023-11-14T22:13:20Z",
            "2",
            "s",
            "ago",
            "7",
            "12",
            "postgresql",
            "1.2.3",
            "one-1a",
            "http://10.0.0.5:1234",
        ]
    )
    assert two.startswith("gone ") and two.endswith(" -") and "\x1b" not in two


def test_as_json_there_is_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_nodes([ONE, TWO], as_json=True)
    one, two = map(json.loads, capsys.readouterr().out.splitlines())
    assert one == {
        "name": "one-1a",
        "address": "http://10.0.0.5:1234",
        "version": "1.2.3",
        "alive": True,
        "since": "2023-11-14T22:13:20Z",
        "heartbeat_at": "2023-11-14T22:14:20Z",
        "silent_seconds": 2.4,
        "documents": 7,
        "connections": 12,
        "bus": "postgresql",
    }
    assert two["alive"] is False and two["name"] == TWO.name


def test_the_guide_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    at = 1_777_886_047.0
    name = "5f0c2a91d3b7e844-91c0aa"
    one = Node(name, "http://collab-1:1234", "0.2.0", "postgresql", "{}", 812, 2_304, 5.0, at, at, 2.0)
    name = "a2c47d5510e98f3b-04d7e1"
    two = Node(name, "http://collab-2:1234", "0.2.0", "postgresql", "{}", 790, 2_251, 5.0, at + 2, at, 140.0)
    print_nodes([one, two], as_json=False)
    assert capsys.readouterr().out == snippet("docs/scaling.md", "Who is there", "")
