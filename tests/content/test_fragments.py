"""Rich text of a document in a script's own hands: read in a format, and written by difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pycrdt
import pytest

from collab.content.edits import Dialect
from collab.content.fragments import (
    fragment_to_html,
    fragment_to_json,
    fragment_to_markdown,
    fragment_to_text,
    html_to_fragment,
    json_to_fragment,
    markdown_to_fragment,
    text_to_fragment,
)
from collab.errors import InvalidEdit, UnreadableContent

MARKDOWN = "# Plan\n\nSome **bold** and *soft* words\n\n- one\n- two\n"


def fragment() -> pycrdt.XmlFragment:
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    return document.get("default", type=pycrdt.XmlFragment)


def copy_of(given: pycrdt.XmlFragment) -> pycrdt.XmlFragment:
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    copied = document.get("default", type=pycrdt.XmlFragment)
    document.apply_update(given.doc.get_update())
    return copied


@pytest.mark.parametrize(
    ("write", "read", "value"),
    [
        (markdown_to_fragment, fragment_to_markdown, MARKDOWN),
        (html_to_fragment, fragment_to_html, "<h1>Plan</h1><p>Some <strong>bold</strong> words</p>"),
        (text_to_fragment, fragment_to_text, "Plan\n\nSome words"),
        (
            json_to_fragment,
            fragment_to_json,
            {"type": "doc", "content": [{"type": "paragraph", "content": [{"type": "text", "text": "words"}]}]},
        ),
    ],
)
def test_what_is_written_in_a_format_is_read_in_it(
    write: Callable[[pycrdt.XmlFragment, Any], bool], read: Callable[[pycrdt.XmlFragment], Any], value: Any
) -> None:
    shown = fragment()
    assert write(shown, value) is True
    assert read(shown) == value == read(copy_of(shown))
    # What is there already is not written again.
    before = shown.doc.get_update()
    assert write(shown, value) is False
    assert shown.doc.get_update() == before


def test_the_names_are_those_of_the_editor() -> None:
    shown = fragment()
    markdown_to_fragment(shown, MARKDOWN)
    assert [node["type"] for node in fragment_to_json(shown)["content"]] == ["heading", "paragraph", "bulletList"]
    other = fragment()
    markdown_to_fragment(other, MARKDOWN, dialect=Dialect.PROSEMIRROR)
    assert [node["type"] for node in fragment_to_json(other)["content"]] == ["heading", "paragraph", "bullet_list"]
    # What is there says more than what is asked for.
    markdown_to_fragment(other, MARKDOWN + "\n1. new\n", dialect=Dialect.TIPTAP)
    assert fragment_to_json(other)["content"][-1]["type"] == "ordered_list"


def test_what_others_write_at_the_same_time_stays() -> None:
    ours = fragment()
    markdown_to_fragment(ours, "one\n\ntwo\n\nthree\n")
    theirs = copy_of(ours)
    markdown_to_fragment(theirs, "one, they said\n\ntwo\n\nthree\n")
    markdown_to_fragment(ours, "one\n\ntwo\n\nthree, we said\n")
    ours.doc.apply_update(theirs.doc.get_update(ours.doc.get_state()))
    assert fragment_to_markdown(ours) == "one, they said\n\ntwo\n\nthree, we said\n"


def test_a_transaction_that_is_open_is_used() -> None:
    shown = fragment()
    updates: list[bytes] = []
    subscription = shown.doc.observe(lambda event: updates.append(event.update))
    with shown.doc.transaction():
        markdown_to_fragment(shown, "one\n")
        markdown_to_fragment(shown, "one\n\ntwo\n")
        assert updates == []
    shown.doc.unobserve(subscription)
    assert len(updates) == 1 and fragment_to_markdown(shown) == "one\n\ntwo\n"


def test_of_html_only_what_is_harmless_is_taken() -> None:
    shown = fragment()
    html_to_fragment(shown, '<p>a<script>alert(1)</script><a href="javascript:alert(1)">b</a></p>')
    markdown_to_fragment(shown, fragment_to_markdown(shown) + "\n<img src=x onerror=alert(1)>\n")
    assert "alert" not in str(fragment_to_json(shown))


@pytest.mark.parametrize(
    ("write", "value"),
    [
        (markdown_to_fragment, "x" * (2 << 20 | 1)),
        (markdown_to_fragment, None),
        (html_to_fragment, "<div>" * 5_000 + "x"),
        (json_to_fragment, {"type": "paragraph"}),
        (json_to_fragment, {"type": "doc", "content": [{"type": "paragraph", "attrs": {"at": float("nan")}}]}),
    ],
)
def test_what_cannot_be_written_is_refused_and_changes_nothing(
    write: Callable[[pycrdt.XmlFragment, Any], bool], value: Any
) -> None:
    shown = fragment()
    markdown_to_fragment(shown, MARKDOWN)
    before = shown.doc.get_update()
    with pytest.raises(InvalidEdit):
        write(shown, value)
    assert shown.doc.get_update() == before


def test_a_fragment_that_nests_too_deeply_is_not_read() -> None:
    shown = fragment()
    with shown.doc.transaction():
        parent: Any = shown
        for _ in range(1_500):
            parent = parent.children.append(pycrdt.XmlElement("blockquote"))
    with pytest.raises(UnreadableContent):
        fragment_to_markdown(shown)


def test_a_fragment_in_no_document_cannot_be_written() -> None:
    with pytest.raises(RuntimeError, match="Not integrated"):
        markdown_to_fragment(pycrdt.XmlFragment(), MARKDOWN)
