"""What nodes say to each other about a document, as bytes.

Strategy: a topic is a document's name, or ``ALL_NODES``, on which only Look is said. Beside these are ``QUESTIONS``, on
which any node is asked what it alone knows, and a topic of each node for the answers to its own questions. A message is
one byte for its kind, then lib0 encodings. A kind that a node does not know is left alone, and so is a topic, so that
nodes of two releases can be on one bus while they are replaced.

    0 Committed  varuint(document id) varuint(number)    rows up to this number are in the log
    1 Awareness  varbytes(awareness update)              changed states of the sender's sessions
    3 Stateless  varbytes(payload)                       a text of the application, UTF-8
    4 Deleted    varuint(document id)                    the document was deleted
    5 Rows       varuint(document id) varuint(first number) varuint(count) count*row
                                                         these rows are in the log
    6 Held       varuint(document id, 0: none) varuint(number) varbytes(awareness update)
                                                         up to where the sender holds the log, and all its states
    7 Look       empty                                   something beside the rows has changed in the store
    8 Renamed    varuint(document id) varbytes(name)     the document has this name now; Deleted follows, for those who
                                                         do not know this
    16 Asked     varbytes(awareness update)              the sender asks clients of the receiver to announce themselves
    17 Claimed   varuint(client ID) varuint(clock) byte(1: first) byte(0: no author, 1: varbytes(author))
                 byte(0: no address, 1: varbytes(address))
                                                         a session of the sender claims an ID that the receiver shows
    18 Visited   varbytes(awareness update) varuint(count) count*person
                                                         states of the sender's visitors, and who these are
    19 Posted    varuint(document id) varbytes(stream) varbytes(node) varuint(number) varuint(age in seconds)
                 varbytes(bytes)                         a named presence stream has this; number 0: it is there
    24 Question  varuint(number) varbytes(JSON)          the sender asks all nodes; ``collab.hub.questions`` says what
    25 Answer    varuint(number) varbytes(JSON)          to the question with this number of the receiver
    row          float64le(time, Unix seconds) byte(0: no author, 1: varbytes(author)) varbytes(update)
    person       varuint(client ID) byte(0: no author, 1: varbytes(author)) byte(0: no address, 1: varbytes(address))

An author, or an address, is UTF-8, with lone surrogates as the store keeps them.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, assert_never

from collab.errors import DecodeError, InvalidDocumentName
from collab.protocol.lib0 import encode_var_bytes, encode_var_uint, read_var_bytes, read_var_uint
from collab.protocol.names import decode_document_name

ALL_NODES: Final = "\0nodes"
"""The topic of all nodes: no document has such a name. Look says there that operators have told something."""

QUESTIONS: Final = "\0questions"
"""The topic of questions to all nodes."""

_TIME = struct.Struct("<d")


class Row(NamedTuple):
    """One row of the log, without its number."""

    data: bytes
    at: float
    author: str | None


class Committed(NamedTuple):
    """Rows of a document up to the number ``seq`` are in the log."""

    document_id: int
    seq: int


class Awareness(NamedTuple):
    """An awareness update (y-protocols) of the sender's sessions."""

    update: bytes


class Stateless(NamedTuple):
    """A stateless message of one of the sender's sessions; ``payload`` is UTF-8."""

    payload: bytes


class Deleted(NamedTuple):
    """The document with this number in the store was deleted."""

    document_id: int


class Rows(NamedTuple):
    """Rows that are in the log, the first with the number ``seq``."""

    document_id: int
    seq: int
    rows: tuple[Row, ...]


class Held(NamedTuple):
    """What the sender holds of a document, for one who has just begun to listen, or may have missed something.

    Attributes:
        document_id: None while the document is not stored, as far as the sender knows.
        seq: it holds all rows up to this number.
        awareness: all states of its sessions, an awareness update; it has no others.
    """

    document_id: int | None
    seq: int
    awareness: bytes


class Look(NamedTuple):
    """Something beside the rows has changed in the store."""


class Renamed(NamedTuple):
    """The document with this number in the store has the name ``new_name`` now."""

    document_id: int
    new_name: str


class Asked(NamedTuple):
    """Clients of other nodes are to announce themselves anew: ``update`` has a ``null`` with the clock of each."""

    update: bytes


class Claimed(NamedTuple):
    """A session of the sender says that the client ID is its client's own, with this clock.

    Attributes:
        first: it is the first that this session has shown.
        author, address: who it is; None where nobody knows.
    """

    client: int
    clock: int
    first: bool
    author: str | None
    address: str | None


class VisitedBy(NamedTuple):
    """Whose a client ID is that a visitor shows: its user and its address; None where nobody knows."""

    client: int
    author: str | None
    address: str | None


class Visited(NamedTuple):
    """An awareness update (y-protocols) of the sender's visitors, with who these are, one for each state."""

    update: bytes
    people: tuple[VisitedBy, ...]


class Posted(NamedTuple):
    """Something was posted to a named presence stream, or it is there.

    Attributes:
        document_id: the document's.
        stream: the name of the stream.
        origin: the node that has taken the post, by its name on the bus.
        number: the post's, of that node's own count from 1; 0 for the stream itself, which has no bytes.
        age: whole seconds since then.
        data: its bytes.
    """

    document_id: int
    stream: str
    origin: str
    number: int
    age: int
    data: bytes


class Question(NamedTuple):
    """The sender asks all nodes something; ``number`` is its own count, ``asked`` a JSON object in UTF-8."""

    number: int
    asked: bytes


class Answer(NamedTuple):
    """The sender's answer to the question with this number; ``said`` is a JSON object in UTF-8."""

    number: int
    said: bytes


NodeMessage = (
    Committed
    | Awareness
    | Stateless
    | Deleted
    | Rows
    | Held
    | Look
    | Renamed
    | Asked
    | Claimed
    | Visited
    | Posted
    | Question
    | Answer
)


def answers_topic(node: str) -> str:
    """Give the topic of the answers to a node, by its name on the bus."""
    return f"\0answers {node}"


def encode_node_message(message: NodeMessage) -> bytes:
    """Encode a message for the bus."""
    match message:
        case Committed(document_id, seq):
            return b"\x00" + encode_var_uint(document_id) + encode_var_uint(seq)
        case Awareness(update):
            return b"\x01" + encode_var_bytes(update)
        case Stateless(payload):
            return b"\x03" + encode_var_bytes(payload)
        case Deleted(document_id):
            return b"\x04" + encode_var_uint(document_id)
        case Rows(document_id, seq, rows):
            head = encode_var_uint(document_id) + encode_var_uint(seq) + encode_var_uint(len(rows))
            return b"\x05" + head + b"".join([_encode_row(row) for row in rows])
        case Held(known, seq, awareness):
            return b"\x06" + encode_var_uint(known or 0) + encode_var_uint(seq) + encode_var_bytes(awareness)
        case Look():
            return b"\x07"
        case Renamed(document_id, new_name):
            return b"\x08" + encode_var_uint(document_id) + encode_var_bytes(new_name.encode())
        case Asked(update):
            return b"\x10" + encode_var_bytes(update)
        case Claimed(client, clock, first, author, address):
            head = encode_var_uint(client) + encode_var_uint(clock) + (b"\x01" if first else b"\x00")
            return b"\x11" + head + _encode_optional(author) + _encode_optional(address)
        case Visited(update, people):
            head = encode_var_bytes(update) + encode_var_uint(len(people))
            return b"\x12" + head + b"".join([_encode_person(person) for person in people])
        case Posted(document_id, stream, origin, number, age, data):
            texts = encode_var_bytes(stream.encode()) + encode_var_bytes(origin.encode())
            numbers = encode_var_uint(number) + encode_var_uint(age)
            return b"\x13" + encode_var_uint(document_id) + texts + numbers + encode_var_bytes(data)
        case Question(number, asked):
            return b"\x18" + encode_var_uint(number) + encode_var_bytes(asked)
        case Answer(number, said):
            return b"\x19" + encode_var_uint(number) + encode_var_bytes(said)
        case _:
            assert_never(message)


def _encode_row(row: Row) -> bytes:
    return _TIME.pack(row.at) + _encode_optional(row.author) + encode_var_bytes(row.data)


def _encode_person(person: VisitedBy) -> bytes:
    return encode_var_uint(person.client) + _encode_optional(person.author) + _encode_optional(person.address)


def _encode_optional(text: str | None) -> bytes:
    return b"\x00" if text is None else b"\x01" + encode_var_bytes(text.encode("utf-8", "surrogatepass"))


def decode_node_message(data: bytes) -> NodeMessage | None:
    """Decode a message of another node; None for a kind that this release does not know.

    Raises:
        DecodeError: a truncated or overlong message.
    """
    kind, pos = read_var_uint(data, 0)
    message: NodeMessage
    if kind == 5:  # first: it comes with nearly every edit of other nodes
        document_id, pos = read_var_uint(data, pos)
        seq, pos = read_var_uint(data, pos)
        count, pos = read_var_uint(data, pos)
        rows = []
        for _ in range(count):
            row, pos = _read_row(data, pos)
            rows.append(row)
        message = Rows(document_id, seq, tuple(rows))
    elif kind == 0:
        document_id, pos = read_var_uint(data, pos)
        seq, pos = read_var_uint(data, pos)
        message = Committed(document_id, seq)
    elif kind == 1:
        update, pos = read_var_bytes(data, pos)
        message = Awareness(update)
    elif kind == 3:
        payload, pos = read_var_bytes(data, pos)
        message = Stateless(payload)
    elif kind == 4:
        document_id, pos = read_var_uint(data, pos)
        message = Deleted(document_id)
    elif kind == 6:
        document_id, pos = read_var_uint(data, pos)
        seq, pos = read_var_uint(data, pos)
        awareness, pos = read_var_bytes(data, pos)
        message = Held(document_id or None, seq, awareness)
    elif kind == 7:
        message = Look()
    elif kind == 8:
        document_id, pos = read_var_uint(data, pos)
        name, pos = read_var_bytes(data, pos)
        try:
            message = Renamed(document_id, decode_document_name(name))
        except InvalidDocumentName as error:
            raise DecodeError(f"a new name between nodes that is none: {error}") from None
    elif kind == 16:
        update, pos = read_var_bytes(data, pos)
        message = Asked(update)
    elif kind == 17:
        client, pos = read_var_uint(data, pos)
        clock, pos = read_var_uint(data, pos)
        first, pos = _read_flag(data, pos)
        author, pos = _read_optional(data, pos)
        address, pos = _read_optional(data, pos)
        message = Claimed(client, clock, first, author, address)
    elif kind == 18:
        message, pos = _read_visited(data, pos)
    elif kind == 19:
        message, pos = _read_posted(data, pos)
    elif kind in (24, 25):
        number, pos = read_var_uint(data, pos)
        text, pos = read_var_bytes(data, pos)
        message = Question(number, text) if kind == 24 else Answer(number, text)
    else:
        return None
    if pos != len(data):
        raise DecodeError(f"{len(data) - pos} bytes behind the end of a message between nodes")
    return message


def _read_visited(data: bytes, pos: int) -> tuple[Visited, int]:
    update, pos = read_var_bytes(data, pos)
    count, pos = read_var_uint(data, pos)
    people = []
    for _ in range(count):
        client, pos = read_var_uint(data, pos)
        author, pos = _read_optional(data, pos)
        address, pos = _read_optional(data, pos)
        people.append(VisitedBy(client, author, address))
    return Visited(update, tuple(people)), pos


def _read_posted(data: bytes, pos: int) -> tuple[Posted, int]:
    document_id, pos = read_var_uint(data, pos)
    stream, pos = read_var_bytes(data, pos)
    origin, pos = read_var_bytes(data, pos)
    number, pos = read_var_uint(data, pos)
    age, pos = read_var_uint(data, pos)
    posted, pos = read_var_bytes(data, pos)
    try:
        return Posted(document_id, stream.decode(), origin.decode(), number, age, posted), pos
    except UnicodeDecodeError:
        raise DecodeError("a text between nodes that is not UTF-8") from None


def _read_row(data: bytes, pos: int) -> tuple[Row, int]:
    if pos + _TIME.size > len(data):
        raise DecodeError("a row between nodes ends in the middle")
    (at,) = _TIME.unpack_from(data, pos)
    author, pos = _read_optional(data, pos + _TIME.size)
    update, pos = read_var_bytes(data, pos)
    return Row(update, at, author), pos


def _read_optional(data: bytes, pos: int) -> tuple[str | None, int]:
    there, pos = _read_flag(data, pos)
    if not there:
        return None, pos
    raw, pos = read_var_bytes(data, pos)
    try:
        return raw.decode("utf-8", "surrogatepass"), pos
    except UnicodeDecodeError:
        raise DecodeError("a text between nodes that is not UTF-8") from None


def _read_flag(data: bytes, pos: int) -> tuple[bool, int]:
    if pos >= len(data):
        raise DecodeError("a message between nodes ends in the middle")
    if data[pos] > 1:
        raise DecodeError(f"{data[pos]} where a message between nodes says yes or no")
    return data[pos] == 1, pos + 1
