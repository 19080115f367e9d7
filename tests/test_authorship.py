"""Notes of edits: bounded texts."""

from __future__ import annotations

import pytest

from collab.authorship import MAX_NOTE_BYTES, Note, make_note
from collab.errors import LimitExceeded


def test_nothing_to_note_is_no_note() -> None:
    assert make_note(None, None) is None
    assert make_note("", None) == Note("", None)
    assert make_note(None, "model") == Note(None, "model")


@pytest.mark.parametrize("name", ["on_behalf_of", "label"])
def test_texts_are_bounded_in_bytes(name: str) -> None:
    fits = "ä" * (MAX_NOTE_BYTES // 2)
    for text in (fits, fits + "a", "\ud83d" + "a" * (MAX_NOTE_BYTES - 3)):
        assert getattr(Note(**{name: text}), name) == text
    with pytest.raises(LimitExceeded, match=f"{name} has 256 bytes") as caught:
        Note(**{name: fits + "ä"})
    assert caught.value.public == str(caught.value)
