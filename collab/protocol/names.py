"""The one rule for document names, for every protocol, the HTTP API and the command line.

Strategy: a name is text that any of them can carry and any database can keep. What is no name is refused with the
rule as its reason, so that nobody has to guess what is wrong with it.
"""

from __future__ import annotations

from collab.errors import InvalidDocumentName

MAX_NAME_BYTES = 512


def covers(pattern: str, name: str) -> bool:
    """Tell whether a pattern is for a document: its name, or the beginning of its name with a ``*`` behind.

    As in the claim ``documents`` of a token; the slash has no meaning of its own.
    """
    prefix, star, _ = pattern.partition("*")
    return name.startswith(prefix) if star else name == pattern


def check_document_name(name: str) -> None:
    """Refuse what cannot be the name of a document.

    Raises:
        InvalidDocumentName: it is empty or white space alone (nobody could see or type it), longer than 512 bytes
            of UTF-8, holds half a character (a lone surrogate), or a NUL, which PostgreSQL cannot keep in a text and
            which ends the name in an address of the Hocuspocus protocol.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidDocumentName("document name: not UTF-8") from None
    if not 0 < size <= MAX_NAME_BYTES:
        raise InvalidDocumentName(f"document name of {size} bytes")
    if "\0" in name:
        raise InvalidDocumentName(
            "document name with a NUL", public="a document name is 1 to 512 bytes of UTF-8 without NUL"
        )
    if not name.strip():
        raise InvalidDocumentName(
            "blank document name", public="a document name is 1 to 512 bytes of UTF-8, and not white space alone"
        )


def decode_document_name(data: bytes) -> str:
    """Decode a name from its UTF-8 bytes.

    Raises:
        InvalidDocumentName: not UTF-8, or see ``check_document_name``.
    """
    try:
        name = data.decode()
    except UnicodeDecodeError:
        raise InvalidDocumentName("document name: not UTF-8") from None
    check_document_name(name)
    return name
