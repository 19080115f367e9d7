"""What Y-Sweet's client is told about its versions: each line is one thing that happens to a session."""

from __future__ import annotations

from collab.protocol.versions import _MAX_UNDER_WAY as MAX_UNDER_WAY
from collab.protocol.versions import Versions


def test_a_version_is_confirmed_once_and_told_again_while_nothing_changes() -> None:
    versions = Versions()
    assert versions.confirm(whole=True) is None, "nobody has asked"
    assert versions.ask(0) is None and versions.confirm(whole=True) == 0
    assert versions.ask(0) is None, "it is on its way, and before the first answer nobody is impatient"
    assert versions.confirm(whole=True) is None
    versions.settle(0, told=True)
    assert versions.ask(0) == 0
    assert versions.ask(3) is None and versions.confirm(whole=True) == 3
    assert versions.ask(3) == 0, "it lives, and 3 is not saved"
    versions.settle(3, told=True)
    assert versions.ask(3) == 3


def test_a_question_waits_until_the_client_owes_no_answer() -> None:
    versions = Versions()
    assert versions.ask(2) is None and versions.confirm(whole=False) is None
    assert versions.ask(4) is None and versions.confirm(whole=False) is None
    assert versions.confirm(whole=True) == 4, "the last one"
    assert versions.confirm(whole=True) is None


def test_nothing_is_saved_any_more_once_something_was_not_taken() -> None:
    versions = Versions()
    versions.ask(0)
    versions.confirm(whole=True)
    versions.settle(0, told=True)
    versions.unsaved = True
    assert versions.ask(1) is None and versions.confirm(whole=True) is None
    assert versions.ask(1) == 0 and versions.confirm(whole=True) is None


def test_what_could_not_be_told_is_confirmed_when_it_is_asked_again() -> None:
    versions = Versions()
    versions.ask(1)
    assert versions.confirm(whole=True) == 1
    versions.settle(1, told=False)
    assert versions.confirm(whole=True) is None
    assert versions.ask(1) is None and versions.confirm(whole=True) == 1


def test_older_answers_do_not_undo_newer_ones() -> None:
    versions = Versions()
    for version in (1, 2):
        versions.ask(version)
        versions.confirm(whole=True)
    versions.settle(2, told=True)
    versions.settle(1, told=True)
    assert versions.ask(2) == 2


def test_few_answers_wait_and_a_question_that_is_too_much_is_taken_when_it_comes_again() -> None:
    versions = Versions()
    for version in range(MAX_UNDER_WAY):
        assert versions.ask(version) is None and versions.confirm(whole=True) == version
    for _ in range(2):
        assert versions.ask(99) is None and versions.confirm(whole=True) is None
    versions.settle(0, told=True)
    assert versions.ask(99) is None and versions.confirm(whole=True) == 99
    assert versions.ask(100) == 0, "it is told that it lives"
    assert versions.confirm(whole=True) is None
