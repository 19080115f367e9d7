"""Rich text as Markdown: CommonMark with tables and strikethrough (GFM), and task lists.

Strategy: what is written can be read again as the same tree. So characters that would mean something are escaped. What
Markdown has no sign for, or whose sign its rules would not see, is written as HTML that it lets through (``<u>``,
``<mark>``, ``<strong>`` within a word, ``<br>`` in cells of tables, a comment between two lists). Markdown that comes
in is read by `markdown-it-py`; blocks of HTML in it go through the reader of HTML, which lets in what is harmless, and
other tags in a line are text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from collab.content.edits import MAX_MARKUP
from collab.content.html import read_html
from collab.content.merging import seen
from collab.content.schema import LISTS, MARKS, Coverage, safe_image, safe_link
from collab.content.tree import Element, Node, Piece, TextNode, check, joined
from collab.content.values import check_text, units
from collab.errors import InvalidEdit

# Quotes and lists in each other that are read; deeper ones are text.
_MAX_NESTING: Final = 40

_DELIMITERS: Final = {"bold": "**", "italic": "*", "strike": "~~"}
_TAGS: Final = {"underline": "u", "highlight": "mark", "bold": "strong", "italic": "em", "strike": "s"}
_INLINE_TAGS: Final = {
    tag: (name, count)
    for name, shown in [*_TAGS.items(), ("bold", "b"), ("italic", "i"), ("strike", "del")]
    for tag, count in ((f"<{shown}>", 1), (f"</{shown}>", -1))
}
_TASK: Final = re.compile(r"\[([ xX])\](?: |$)")

# Out: what means something wherever it stands, and at the beginning of a line.
_SPECIAL: Final = re.compile(r"[\\`*\[\]]|<(?=[A-Za-z/!?])|&(?=#?[A-Za-z0-9]+;)|~|(?<![^\W_])_|_(?![^\W_])|!(?=\[)")
_AT_LINE_START: Final = re.compile(r"(#{1,6}(?=[ \t]|$)|[-+](?=[ \t]|$)|>|=+[ \t]*$|-[-: \t|]*$|:?-[-: \t|]*$)")
_NUMBERED: Final = re.compile(r"(\d{1,9})([.)])(?=[ \t]|$)")
# A list that is seen without an empty line before it.
_INTERRUPTS: Final = re.compile(r"(?:-|1\.) \S")
_DELIMITER_ROW: Final = re.compile(r"[-:| \t]+$")


def to_markdown(nodes: Sequence[Node]) -> str:
    """Return a tree as Markdown, a line break at its end; what is not known is shown by its content."""
    text = _blocks(seen(nodes, Coverage.MARKDOWN))
    return text + "\n" if text else ""


def _blocks(nodes: Sequence[Node], tight: bool = False) -> str:
    parts: list[str] = []
    before: Node | None = None
    for node in nodes:
        text = _block(node)
        if text is None:
            continue
        if before is not None:
            if isinstance(node, Element) and isinstance(before, Element) and _would_join(before, node):
                parts.append("\n\n<!-- -->\n\n")
            elif tight and _is_list(node) and _INTERRUPTS.match(text):
                parts.append("\n")
            else:
                parts.append("\n\n")
        parts.append(text)
        before = node
    return "".join(parts)


def _is_list(node: Node) -> bool:
    return isinstance(node, Element) and node.name in LISTS


def _would_join(before: Element, node: Element) -> bool:
    """Tell whether two lists behind each other would be read as one."""
    return (
        before.name in LISTS and node.name in LISTS and (before.name == "orderedList") == (node.name == "orderedList")
    )


def _block(node: Node) -> str | None:
    if isinstance(node, TextNode):
        return _line([node]) or None
    name = node.name
    if name == "paragraph":
        return _line(node.children) or None
    if name == "heading":
        level = node.attributes.get("level", 1)
        text = _line(node.children, single=True)
        # A number sign at the end would be taken for the closing ones.
        text = re.sub(r"(#+)$", lambda found: "\\" + found.group(), text)
        return f"{'#' * level} {text}".rstrip(" ") if text else "#" * level
    if name == "codeBlock":
        return _fence(node)
    if name == "horizontalRule":
        return "---"
    if name in ("image", "hardBreak"):
        return _line([node]) or None
    if name == "blockquote":
        inner = _blocks(node.children)
        return "\n".join(">" + (" " + line if line else "") for line in inner.split("\n"))
    if name in LISTS:
        return _list(node)
    if name == "table":
        return _table(node)
    return _blocks(node.children) or None


def _fence(node: Element) -> str:
    text = "".join(
        "\n" if isinstance(child, Element) else "".join(piece.content for piece in child.pieces)
        for child in node.children
    )
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    language = node.attributes.get("language")
    language = re.sub(r"[`\s\\&]+", "-", language) if isinstance(language, str) else ""
    return f"{fence}{language}\n{text}\n{fence}" if text else f"{fence}{language}\n{fence}"


def _list(node: Element) -> str | None:
    number = node.attributes.get("start", 1)
    if type(number) is not int or not 0 <= number < 1_000_000_000 - len(node.children):
        number = 1
    items: list[str] = []
    tight = all(isinstance(item, Element) and _is_tight(item) for item in node.children)
    for offset, item in enumerate(node.children):
        assert isinstance(item, Element)
        sign = f"{number + offset}." if node.name == "orderedList" else "-"
        task = ""
        if node.name == "taskList":
            task = "[x] " if item.attributes.get("checked") is True else "[ ] "
        # A block that is no paragraph stands in the line of the sign as well, so it is read as the item's first.
        body = _item(item, tight)
        if node.name != "taskList" and _TASK.match(body.replace("\\[", "[").replace("\\]", "]")) and body[0] != "\\":
            body = "\\" + body
        lines = (task + body).rstrip(" ").split("\n") if body or task else [""]
        indent = " " * (len(sign) + 1)
        items.append(
            "\n".join([f"{sign} {lines[0]}".rstrip(" "), *(indent + line if line else "" for line in lines[1:])])
        )
    return ("\n" if tight else "\n\n").join(items) or None


def _item(item: Element, tight: bool) -> str:
    children = list(item.children)
    while children and isinstance(children[0], Element) and children[0].name == "paragraph" and not _block(children[0]):
        children.pop(0)
    text = _blocks(children, tight)
    # "- ---" would be a line across the page, and no item.
    return "***" + text[3:] if text.startswith("---") else text


def _is_tight(item: Element) -> bool:
    """Tell whether an item is one paragraph, perhaps with lists under it."""
    return all(
        isinstance(child, Element) and (child.name == "paragraph" if at == 0 else child.name in LISTS)
        for at, child in enumerate(item.children)
    )


def _table(node: Element) -> str | None:
    rows = [
        [_cell(cell) for cell in row.children if isinstance(cell, Element)]
        for row in node.children
        if isinstance(row, Element)
    ]
    width = max((len(row) for row in rows), default=0)
    if not width:
        return None
    lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _cell(cell: Element) -> str:
    parts = [_line(block.children, single=True, cell=True) for block in _lines_of(cell)]
    return "<br>".join(part for part in parts if part)


def _lines_of(node: Element) -> list[Element]:
    """Return the blocks that hold text below a node."""
    found: list[Element] = []
    run: list[Node] = []
    for child in node.children:
        if isinstance(child, TextNode) or child.name in ("image", "hardBreak"):
            run.append(child)
        elif any(isinstance(inner, TextNode) or inner.name in ("image", "hardBreak") for inner in child.children):
            found.append(child)
        else:
            found += _lines_of(child)
    return ([Element("paragraph", {}, run)] if run else []) + found


# Lines


def _line(nodes: Sequence[Node], single: bool = False, cell: bool = False) -> str:
    """Return what stands in a block; ``single`` is for blocks of one line."""
    writer = _LineWriter(single, cell)
    for number, node in enumerate(nodes):
        if isinstance(node, TextNode):
            for piece in node.pieces:
                writer.piece(piece)
        elif node.name == "image":
            writer.raw(_image(node, cell))
        # At the end of a block a break says nothing; a cell has a sign for it, which is read as one everywhere.
        elif cell or any(isinstance(rest, TextNode) or rest.name != "hardBreak" for rest in nodes[number + 1 :]):
            writer.line_break()
    return writer.done()


def _image(node: Element, cell: bool) -> str:
    source = safe_image(node.attributes.get("src"))
    alt = node.attributes.get("alt")
    text = _escape(alt, cell) if isinstance(alt, str) else ""
    if source is None:
        return text
    return f"![{text}]({_target(source, node.attributes.get('title'))})"


def _target(address: str, title: Any) -> str:
    if re.search(r"[\s()<>\\\x00-\x1f]", address) or not address:
        address = re.sub(
            r"[\s\x00-\x1f<>\\]", lambda found: "".join(f"%{byte:02X}" for byte in found.group().encode()), address
        )
        address = f"<{address}>"
    address = re.sub(r"&(?=#?\w+;)", "&amp;", address).replace("|", "%7C")
    if isinstance(title, str) and title:
        text = re.sub(r'([\\"])', r"\\\1", title)
        text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
        text = re.sub(r"\s", lambda found: " " if found.group() == " " else f"&#{ord(found.group())};", text)
        return f'{address} "{text}"'.replace("|", "&#124;")
    return address


def _escape(text: str, cell: bool = False) -> str:
    text = _SPECIAL.sub(lambda found: "\\" + found.group(), text)
    if cell:
        text = text.replace("|", "\\|")
    return re.sub(r"[\n\r\t\x00-\x08\x0b\x0c\x0e-\x1f]", lambda found: f"&#{ord(found.group()) or 0xFFFD};", text)


class _LineWriter:
    """Puts pieces behind each other, and marks around them."""

    def __init__(self, single: bool, cell: bool) -> None:
        self._single = single
        self._cell = cell
        # (text as it is shown, text as it is written, marks); a break of lines is shown as "\n".
        self._runs: list[tuple[str, str, tuple[tuple[str, Any], ...]]] = []

    def piece(self, piece: Piece) -> None:
        if not piece.is_text or not piece.content:
            return
        marks = tuple((name, piece.attributes[name]) for name in MARKS if name in piece.attributes)
        marks = tuple((name, value) for name, value in marks if name != "link" or _href(value) is not None)
        text = piece.content
        if any(name == "code" for name, _ in marks):
            self._runs.append((text, _code(text, self._cell), marks))
            return
        # Spaces at the ends are runs of their own: see `_settle`.
        body = text.strip()
        start = text.index(body) if body else len(text)
        for part in (text[:start], body, text[start + len(body) :]):
            if part:
                self._runs.append((part, _escape(part, self._cell), marks))

    def _settle(self) -> None:
        """Take the signs of emphasis off spaces at which it begins or ends: a sign does not stand beside a space."""
        runs = self._runs
        before: list[frozenset[str]] = []
        held: frozenset[str] = frozenset()
        for shown, _, marks in runs:
            before.append(held)
            held = held if shown.isspace() else frozenset(name for name, _ in marks)
        held = frozenset()
        for at in range(len(runs) - 1, -1, -1):
            shown, text, marks = runs[at]
            if not shown.isspace() or any(name == "code" for name, _ in marks):
                held = frozenset(name for name, _ in marks)
                continue
            both = before[at] & held
            runs[at] = (shown, text, tuple(mark for mark in marks if mark[0] not in _DELIMITERS or mark[0] in both))

    def raw(self, text: str) -> None:
        if text:
            self._runs.append(("!", text, ()))

    def line_break(self) -> None:
        if self._cell:
            self._runs.append(("\n", "<br>", ()))
        elif self._single:
            self._runs.append((" ", " ", ()))
        else:
            self._runs.append(("\n", "\\\n", ()))

    def done(self) -> str:
        """Return the line.

        The rules of emphasis look at the characters beside a mark; where they would not see it, it is written as HTML.
        """
        self._settle()
        line, is_risky = self._written(_DELIMITERS)
        text = self._at_line_starts(line)
        if is_risky and not self._is_read(text):
            text = self._at_line_starts(self._written({})[0])
        return text

    def _is_read(self, text: str) -> bool:
        """Tell whether a line is read as what it was written of."""
        wanted: list[tuple[str, frozenset[str]]] = []
        for shown, _, marks in self._runs:
            names = frozenset(name for name, _ in marks)
            wanted += [(character, names) for character in shown if not character.isspace() and shown != "!"]
        found: list[tuple[str, frozenset[str]]] = []
        for node in read_inline(_PARSER.parseInline(text)[0].children or []):
            if isinstance(node, TextNode):
                for piece in node.pieces:
                    names = frozenset(piece.attributes)
                    found += [(character, names) for character in piece.content if not character.isspace()]
        return found == [(character, names) for character, names in wanted]

    def _written(self, delimiters: Mapping[str, str]) -> tuple[str, bool]:
        """Return the line, and whether a sign stands within a word, beside another sign or beside a space."""
        written: list[str] = []
        open_: list[tuple[str, Any]] = []
        is_risky = False
        before = " "
        runs = [*self._runs, (" ", "", ())]
        for at, (shown, text, marks) in enumerate(runs):
            common = 0
            while common < len(open_) and open_[common] in marks:
                common += 1
            for name, value in reversed(open_[common:]):
                is_risky = is_risky or (name in _DELIMITERS and (before.isspace() or not shown[0].isspace()))
                written.append(_closing(name, value, delimiters))
            del open_[common:]
            # What lasts longer is begun before.
            new = [mark for mark in marks if mark not in open_]
            for name, value in sorted(new, key=lambda mark: -_lasting(mark, runs, at)):
                is_risky = is_risky or (name in _DELIMITERS and (shown[0].isspace() or not before.isspace()))
                if name == "link" and written and written[-1].endswith("!"):
                    written[-1] = written[-1][:-1] + "\\!"  # else it would be an image
                written.append(_opening(name, delimiters))
                open_.append((name, value))
            written.append(text)
            before = shown[-1]
        return "".join(written), is_risky

    def _at_line_starts(self, text: str) -> str:
        """Escape what would begin a block, and spaces that would be left out."""
        if self._cell:
            return text.strip(" ")
        lines = text.split("\n")
        for number, line in enumerate(lines):
            if line[:1].isspace():
                line = f"&#{ord(line[0])};" + line[1:]
            if line[-1:].isspace():
                line = line[:-1] + f"&#{ord(line[-1])};"
            if not self._single:
                if _AT_LINE_START.match(line) or (_DELIMITER_ROW.match(line) and "-" in line):
                    line = "\\" + line
                line = _NUMBERED.sub(r"\1\\\2", line, count=1) if _NUMBERED.match(line) else line
            lines[number] = line
        return "\n".join(lines)


def _lasting(mark: tuple[str, Any], runs: Sequence[tuple[str, str, tuple[tuple[str, Any], ...]]], at: int) -> int:
    """Return how many runs from one on have a mark."""
    end = at
    while end < len(runs) and mark in runs[end][2]:
        end += 1
    return end - at


def _href(value: Any) -> str | None:
    return safe_link(value.get("href")) if isinstance(value, dict) else None


def _opening(name: str, delimiters: Mapping[str, str]) -> str:
    if name == "link":
        return "["
    if name == "code":
        return ""
    return delimiters.get(name) or f"<{_TAGS[name]}>"


def _closing(name: str, value: Any, delimiters: Mapping[str, str]) -> str:
    if name == "link":
        return f"]({_target(_href(value) or '', value.get('title'))})"
    if name == "code":
        return ""
    return delimiters.get(name) or f"</{_TAGS[name]}>"


def _code(text: str, cell: bool) -> str:
    """Return a text as code: line breaks are spaces in it, and a run of backticks longer than any inside bounds it."""
    text = re.sub(r"[\r\n]", " ", text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    if text.startswith("`") or text.endswith("`") or (text.startswith(" ") and text.endswith(" ") and text.strip(" ")):
        text = f" {text} "
    if cell:
        text = text.replace("|", "\\|")
    return fence + text + fence


# In


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING, "html": True})
    parser.enable(["table", "strikethrough"])
    # What a link may be is decided once, for all formats; here each is let through.
    parser.validateLink = lambda url: True  # type: ignore[method-assign]
    return parser


_PARSER: Final = _parser()


def from_markdown(text: Any) -> list[Node]:
    """Return Markdown as a tree, in Tiptap's names; raises InvalidEdit for what is no text or too large."""
    text = check_text(text, "the Markdown")
    if units(text) > MAX_MARKUP:
        raise InvalidEdit(f"the Markdown has more than {MAX_MARKUP} UTF-16 units")
    return check(_Reader(_PARSER.parse(text)).blocks(), "the Markdown")


class _Reader:
    """Goes through the tokens of a document, which open and close blocks."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def blocks(self, closing: str = "") -> list[Node]:
        """Return the blocks up to a closing token, or to the end."""
        found: list[Node] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token.type == closing:
                break
            found += self._block(token)
        return found

    def _block(self, token: Token) -> list[Node]:
        kind = token.type
        if kind == "paragraph_open":
            return [Element("paragraph", {}, self._inline("paragraph_close"))]
        if kind == "heading_open":
            return [Element("heading", {"level": int(token.tag[1])}, self._inline("heading_close"))]
        if kind == "bullet_list_open":
            return self._bullets(self.blocks("bullet_list_close"))
        if kind == "ordered_list_open":
            start = token.attrGet("start")
            items = self.blocks("ordered_list_close")
            number = int(start) if start is not None else 1
            return [Element("orderedList", {"start": number} if number != 1 else {}, items)]
        if kind == "list_item_open":
            return [Element("listItem", {}, self.blocks("list_item_close") or [Element("paragraph")])]
        if kind == "blockquote_open":
            return [Element("blockquote", {}, self.blocks("blockquote_close") or [Element("paragraph")])]
        if kind in ("fence", "code_block"):
            text = token.content[:-1] if token.content.endswith("\n") else token.content
            language = token.info.split()[0] if kind == "fence" and token.info.split() else ""
            children: list[Node] = [TextNode([Piece(text)])] if text else []
            return [Element("codeBlock", {"language": language} if language else {}, children)]
        if kind == "hr":
            return [Element("horizontalRule")]
        if kind == "html_block":
            return read_html(token.content)
        if kind == "table_open":
            return [Element("table", {}, self.blocks("table_close"))]
        if kind in ("thead_open", "tbody_open"):
            return self.blocks(kind.replace("open", "close"))
        if kind == "tr_open":
            return [Element("tableRow", {}, self.blocks("tr_close"))]
        if kind in ("th_open", "td_open"):
            name = "tableHeader" if kind == "th_open" else "tableCell"
            return [Element(name, {}, [Element("paragraph", {}, self._inline(kind.replace("open", "close")))])]
        if kind == "inline":
            children = read_inline(token.children or [])
            return [Element("paragraph", {}, children)] if children else []
        return []

    def _inline(self, closing: str) -> list[Node]:
        children: list[Node] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token.type == closing:
                break
            if token.type == "inline":
                children += read_inline(token.children or [])
        return children

    def _bullets(self, items: list[Node]) -> list[Node]:
        """Return a list, as one of tasks where each item is one."""
        checks = [_task_of(item) for item in items]
        if not items or any(check is None for check in checks):
            return [Element("bulletList", {}, items)]
        tasks: list[Node] = []
        for item, checked in zip(items, checks, strict=True):
            assert isinstance(item, Element)
            first = item.children[0]
            assert isinstance(first, Element) and isinstance(first.children[0], TextNode)
            pieces = first.children[0].pieces
            rest = joined([Piece(pieces[0].content[4:], pieces[0].attributes), *pieces[1:]])
            line: list[Node] = [*([TextNode(rest)] if rest else []), *first.children[1:]]
            blocks: list[Node] = [Element("paragraph", {}, line), *item.children[1:]]
            tasks.append(Element("taskItem", {"checked": True} if checked else {}, blocks))
        return [Element("taskList", {}, tasks)]


def _task_of(item: Node) -> bool | None:
    """Tell whether a list item is ticked, None if it has no box."""
    if not isinstance(item, Element) or not item.children:
        return None
    first = item.children[0]
    if not isinstance(first, Element) or first.name != "paragraph" or not first.children:
        return None
    text = first.children[0]
    if not isinstance(text, TextNode) or text.pieces[0].attributes:
        return None
    found = _TASK.match(text.pieces[0].content)
    return None if found is None else found.group(1) != " "


def read_inline(tokens: Sequence[Token]) -> list[Node]:
    """Return what stands in a line as texts, line breaks and images."""
    nodes: list[Node] = []
    pieces: list[Piece] = []
    marks: dict[str, int] = {}
    links: list[dict[str, Any] | None] = []

    def close() -> None:
        text = joined(pieces)
        if text:
            nodes.append(TextNode(text))
        pieces.clear()

    def put(text: str, *more: str) -> None:
        held: dict[str, Any] = {name: {} for name, count in marks.items() if count > 0}
        held.update((name, {}) for name in more)
        if links and links[-1] is not None:
            held["link"] = links[-1]
        pieces.append(Piece(text.replace("\0", "\ufffd"), held))

    names = {"strong": "bold", "em": "italic", "s": "strike"}
    for token in tokens:
        kind = token.type
        name, _, side = kind.rpartition("_")
        if kind in ("text", "text_special"):
            put(token.content)
        elif kind == "code_inline":
            put(token.content, "code")
        elif kind == "softbreak":
            put(" ")
        elif kind == "hardbreak" or (
            kind == "html_inline" and re.fullmatch(r"<br\s*/?>", token.content, re.IGNORECASE)
        ):
            close()
            nodes.append(Element("hardBreak"))
        elif kind == "image":
            source = safe_image(token.attrGet("src"))
            alt = _alt(token.children or [])
            if source is None:
                put(alt)
                continue
            attributes: dict[str, Any] = {"src": source}
            if alt:
                attributes["alt"] = alt
            if title := token.attrGet("title"):
                attributes["title"] = title
            close()
            nodes.append(Element("image", attributes))
        elif name in names:
            marks[names[name]] = marks.get(names[name], 0) + (1 if side == "open" else -1)
        elif kind == "link_open":
            href = safe_link(token.attrGet("href"))
            title = token.attrGet("title")
            links.append(None if href is None else {"href": href, **({"title": title} if title else {})})
        elif kind == "link_close":
            links.pop()
        elif kind == "html_inline":
            known = _INLINE_TAGS.get(token.content.lower())
            if known is not None:
                marks[known[0]] = marks.get(known[0], 0) + known[1]
            elif not token.content.startswith("<!--"):
                put(token.content)
    close()
    return nodes


def _alt(tokens: Sequence[Token]) -> str:
    return "".join(token.content if token.type != "softbreak" else " " for token in tokens if token.type != "image")
