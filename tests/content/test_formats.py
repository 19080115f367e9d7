"""Formats of rich text: round trips, what y-prosemirror makes of them, and what never gets in."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collab.content.edits import MAX_MARKUP, Dialect, Format, Replace, RootType, TextReplace
from collab.content.html import from_html, to_html
from collab.content.markdown import from_markdown, to_markdown
from collab.content.prosemirror import hash_of
from collab.content.replica import Replica
from collab.content.schema import safe_image, safe_link
from collab.content.tree import Element, Node, Piece, TextNode
from collab.content.values import key_of
from collab.errors import InvalidEdit, NoSuchContent, WrongContentType
from tests.content import samples
from tests.support.node import NodeScript

EMPTY = b"\0\0"

MARKDOWN = [
    '# Title\n\nSome *em* and **bold** with `code` and [link](https://x.y "t").\n',
    "###### six\n\n#\n",
    "- a\n- b\n  - c\n    1. d\n  - e\n",
    "1. x\n2. y\n\nbetween\n\n7. z\n8. zz\n",
    "- [ ] todo\n- [x] **done**\n  - [ ] below\n",
    "- a\n\n  second paragraph\n\n- b\n\n  ```py\n  code\n  ```\n",
    "- a\n\n<!-- -->\n\n- b\n",
    "> quote\n>\n> > deeper\n>\n> - list\n",
    "```js\nlet a = `1`\n\n\tb\n```\n",
    "````\n```\n````\n",
    "| a | b |\n| --- | --- |\n| 1 | **2** |\n|  | x \\| y<br>z |\n",
    "| a |\n| --- |\n| **x**<br> |\n",
    "a\\\nb\n",
    "---\n",
    '![alt](https://x/y.png)\n\n![](a.png "t")\n',
    "~~gone~~ ***both*** **a *b* c**\n",
    "1\\. no list\n\n\\# no heading\n\n\\- no item\n\n\\> no quote\n\n\\===\n\n\\---\n",
    "a \\* b \\_c\\_ snake_case \\`d\\` 5 < 6 \\<b> \\[x\\] \\&amp; & \\~\n",
    "<u>under</u> and <mark>marked</mark>\n",
    "<strong>bold:</strong>word and w<em>(i)</em>n\n",
    '[a](<b c> "q\\"t") [mail](mailto:a@b.c) [here](#x)\n',
    "&#32;space at both ends&#32;\n",
    "``a ` b`` `` ` `` `a`\n",
    "hello\\![x](y)\n\n\\!\\[no image\\](z)\n",
]


@pytest.mark.parametrize("text", MARKDOWN)
def test_markdown_comes_back_as_it_was(text: str) -> None:
    replica = Replica(EMPTY, 7)
    replica.edit(Replace("x", Format.MARKDOWN, text))
    shown = replica.read(Format.MARKDOWN, "x")
    if "b c" in text:
        text = text.replace("<b c>", "<b%20c>")  # as the parser writes addresses
        text = text.replace("<b%20c>", "b%20c")
    assert shown == text.replace("<mark>marked</mark>", "marked")  # no mark of Tiptap's usual ones
    assert replica.edit(Replace("x", Format.MARKDOWN, shown)) == b""
    for format in (Format.HTML, Format.TEXT, Format.PROSEMIRROR):
        assert replica.edit(Replace("x", format, replica.read(format, "x"))) == b"", format
    if "&#32;" not in text and "<br> |" not in text:  # HTML shows neither such spaces nor a break at the end
        assert to_markdown(from_html(to_html(from_markdown(text)))) == text


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_any_text_with_any_marks_comes_back_from_markdown(random: Random) -> None:
    tree = [Element("paragraph", {}, samples.line(random, True, ("bold", "italic", "strike", "link", "code")))]
    text = to_markdown(tree)

    def letters(nodes: list[Node]) -> list[tuple[str, tuple[str, ...]]]:
        """Return the characters and their marks; where spaces lie beside a mark says nothing."""
        found: list[tuple[str, tuple[str, ...]]] = []
        for node in nodes:
            if isinstance(node, Element):
                found += letters(node.children)
                continue
            for piece in node.pieces:
                marks = tuple(sorted(piece.attributes))
                found += [(letter, marks) for letter in piece.content if not letter.isspace()]
        return found

    assert letters(from_markdown(text)) == letters(tree), text


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_any_content_is_written_back_without_a_change(random: Random) -> None:
    """Whatever the document holds, and whatever the format leaves out of it."""
    replica = Replica(EMPTY, 7)
    tree = samples.blocks(random, special=True)
    tree.append(Element("callout", {"kind": "note"}, samples.blocks(random)))
    tree.append(Element("video", {"src": "x"}))
    replica.edit(Replace("x", Format.PROSEMIRROR, {"type": "doc", "content": as_prosemirror(tree)}))
    for format in (Format.MARKDOWN, Format.HTML, Format.TEXT):
        assert replica.edit(Replace("x", format, replica.read(format, "x"))) == b"", format


def as_prosemirror(nodes: list[Node]) -> list[dict[str, Any]]:
    from collab.content.prosemirror import to_prosemirror

    content: list[dict[str, Any]] = to_prosemirror(nodes)["content"]
    return content


def paragraph(*children: Node) -> Element:
    return Element("paragraph", {}, list(children))


def test_what_a_format_cannot_say_stays_where_it_is() -> None:
    replica = Replica(EMPTY, 7)
    link = {"href": "https://a.b", "target": "_blank", "class": None}
    tree: list[Node] = [
        Element("heading", {"level": 2, "textAlign": "center"}, [TextNode([Piece("Title")])]),
        paragraph(
            TextNode(
                [Piece("Hello "), Piece("dear", {"comment": {"id": 1}}), Piece(" "), Piece("link", {"link": link})]
            ),
            Element("mention", {"id": "ann"}),
            TextNode([Piece(" and all", {"textStyle": {"color": "red"}})]),
        ),
        Element("video", {"src": "v.mp4"}),
        Element("callout", {"kind": "note"}, [paragraph(TextNode([Piece("inside")]))]),
        paragraph(TextNode([Piece("last")])),
        paragraph(),
    ]
    replica.edit(Replace("x", Format.PROSEMIRROR, {"type": "doc", "content": as_prosemirror(tree)}))
    assert (
        replica.read(Format.MARKDOWN, "x") == "## Title\n\nHello dear [link](https://a.b) and all\n\ninside\n\nlast\n"
    )
    text = "# Title!\n\nHello my dear [link](https://a.b) **and** all of you\n\ninside\n\nlast\n\nnew\n"
    replica.edit(Replace("x", Format.MARKDOWN, text))
    assert replica.read(Format.MARKDOWN, "x") == text
    content = replica.read(Format.PROSEMIRROR, "x")["content"]
    assert [block["type"] for block in content] == [
        "heading",
        "paragraph",
        "video",
        "callout",
        "paragraph",
        "paragraph",
    ]
    assert content[0]["attrs"] == {"level": 1, "textAlign": "center"}
    line = content[1]["content"]
    assert {"type": "mention", "attrs": {"id": "ann"}} in line
    marks = {
        piece["text"]: {mark["type"]: mark["attrs"] for mark in piece.get("marks", [])}
        for piece in line
        if "text" in piece
    }
    assert marks["dear"] == {"comment": {"id": 1}}
    assert marks["link"] == {"link": link}
    assert marks["and"] == {"bold": {}, "textStyle": {"color": "red"}}
    assert content[3]["attrs"] == {"kind": "note"}


def test_the_names_of_a_document_are_kept() -> None:
    replica = Replica(EMPTY, 7)
    strong = {"type": "text", "text": "a", "marks": [{"type": "strong", "attrs": {}}]}
    basic = {
        "type": "doc",
        "content": [
            {"type": "bullet_list", "content": [{"type": "list_item", "content": [{"type": "paragraph"}]}]},
            {"type": "paragraph", "content": [strong]},
        ],
    }
    replica.edit(Replace("x", Format.PROSEMIRROR, basic))
    replica.edit(
        Replace("x", Format.MARKDOWN, "1. one\n\n**a** *b* ~~c~~\n\n- [x] task\n\n```js\nx\n```\n\na\\\nb ![](i.png)\n")
    )
    content = replica.read(Format.PROSEMIRROR, "x")["content"]
    names = [block["type"] for block in content]
    assert names == ["ordered_list", "paragraph", "bullet_list", "code_block", "paragraph"]
    marks = [mark["type"] for piece in content[1]["content"] for mark in piece.get("marks", [])]
    assert marks == ["strong", "em"], "what the basic schema does not know, an editor would delete"
    assert content[3]["attrs"] == {"params": "js"}
    assert [node["type"] for node in content[4]["content"]] == ["text", "hard_break", "text", "image"]


def test_a_new_document_speaks_the_dialect_that_is_asked_for() -> None:
    for dialect, name in ((None, "bulletList"), (Dialect.TIPTAP, "bulletList"), (Dialect.PROSEMIRROR, "bullet_list")):
        replica = Replica(EMPTY, 7)
        replica.edit(Replace("x", Format.HTML, "<ul><li>a</li></ul>", dialect=dialect))
        assert replica.read(Format.PROSEMIRROR, "x")["content"][0]["type"] == name


def test_what_an_editor_would_delete_is_put_as_its_schema_wants_it() -> None:
    replica = Replica(EMPTY, 7)
    replica.edit(
        Replace("x", Format.MARKDOWN, "- # heading in an item\n\nbefore ![a](i.png) behind\n\n- ![b](j.png)\n")
    )
    content = replica.read(Format.PROSEMIRROR, "x")["content"]
    assert [block["type"] for block in content] == ["bulletList", "paragraph", "image", "paragraph", "bulletList"]
    assert [block["type"] for block in content[0]["content"][0]["content"]] == ["paragraph", "heading"]
    assert [block["type"] for block in content[4]["content"][0]["content"]] == ["paragraph", "image"]


HOSTILE = [
    "<script>alert(1)</script>",
    "<p onclick='alert(1)' style='x:expression(1)'>a</p>",
    "<img src=x onerror=alert(1)>",
    "<a href='javascript:alert(1)'>a</a>",
    "<a href='JaVa\tScRiPt:alert(1)'>a</a>",
    "<a href='&#1;javascript:alert(1)'>a</a>",
    "<a href='java&#10;script:alert(1)'>a</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>a</a>",
    "<a href='vbscript:x'>a</a>",
    "<img src='data:image/svg+xml,<svg onload=alert(1)>'>",
    "<img src='javascript:alert(1)'>",
    "<svg><script>alert(1)</script><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<iframe src='javascript:alert(1)'></iframe><object data=x></object><embed src=x>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<template><script>alert(1)</script></template><style>@import 'x'</style>",
    "<b><p onmouseover=alert(1)>x</b>",
    "<pre><code class='language-\"onload=alert(1)'>x</code></pre>",
    "<ol start='1\" onload=alert(1)'><li>x</ol>",
    "<td colspan='9999999'>x</td>",
    "\0<scr\0ipt>alert(1)</script>",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("format", [Format.HTML, Format.MARKDOWN])
def test_nothing_that_runs_gets_in(text: str, format: Format) -> None:
    replica = Replica(EMPTY, 7)
    replica.edit(Replace("x", format, text + "\n\n" + text, RootType.XML))
    if "x" not in replica.roots:
        return
    html = replica.read(Format.HTML, "x").lower()
    bare = html.replace("&lt;", "").replace("&gt;", "")
    for tag in ("<script", "<iframe", "<object", "<embed", "<svg", "<style", "<math", "<template", "<td onload"):
        assert tag not in html
    # Escaped text may say anything; tags have none of it.
    for inside in [part.split(">")[0] for part in html.split("<")[1:]]:
        assert "javascript:" not in inside and "vbscript:" not in inside and "data:text" not in inside
        assert " on" not in inside and "style=" not in inside
    assert "svg" not in bare or format is Format.MARKDOWN


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://a.b/c", True),
        ("http:x", True),
        ("mailto:a@b", True),
        ("tel:+1", True),
        ("#x", True),
        ("/a:b", True),
        ("a/b?c=d:e", True),
        ("", True),
        ("//host/x", True),
        (" https://a", True),
        ("javascript:x", False),
        (" javascript:x", False),
        ("java\nscript:x", False),
        ("\x01javascript:x", False),
        ("JAVASCRIPT:x", False),
        ("data:text/html,x", False),
        ("vbscript:x", False),
        ("file:///etc", False),
        ("blob:x", False),
        (":x", False),
        ("%6A:x", False),
        ("java\u200bscript:x", False),
        (None, False),
        (5, False),
    ],
)
def test_links_lead_where_nothing_runs(address: Any, safe: bool) -> None:
    assert (safe_link(address) is not None) is safe


def test_images_are_of_the_web_or_in_the_address() -> None:
    assert safe_image("data:image/png;base64,AAAA") == "data:image/png;base64,AAAA"
    assert safe_image("https://a/b.png") is not None and safe_image("b.png") is not None
    for bad in ("data:image/svg+xml;base64,AAAA", "data:text/html;base64,AAAA", "mailto:a@b", "javascript:x"):
        assert safe_image(bad) is None


def test_html_reads_as_browsers_show_it() -> None:
    text = """
      <h2> A   title </h2>
      text that   stands
      alone<br>in lines<br>
      <div><p>one<p>two <b>bold <i>both</b> italic</i></div>
      <ul><li>tight<ul><li>below</li></ul></li><ol><li>astray</li></ol></ul>
      <ul><li><input type=checkbox checked> done</li><li><label><input type="checkbox">open</label></li></ul>
      <table><caption>cap</caption><thead><tr><th>h</th></tr></thead><tr><td colspan=2>a<p>b</td></table>
      <pre class="language-py"><code>x = 1
</code></pre>
    """
    assert to_markdown(from_html(text)) == (
        "## A title\n\ntext that stands alone\\\nin lines\n\none\n\n"
        "two <strong>bold <em>both</em></strong><em> italic</em>\n\n"
        "- tight\n  - below\n  1. astray\n\n<!-- -->\n\n- [x] done\n- [ ] open\n\ncap\n\n"
        "| h |\n| --- |\n| a<br>b |\n\n```py\nx = 1\n```\n"
    )


@pytest.mark.parametrize(
    ("format", "value"),
    [
        (Format.HTML, "<div>" * 50_000 + "x"),
        (Format.HTML, "<b>" * 20_000 + "x"),
        (Format.HTML, "<ul><li>" * 2_000 + "x"),
        (Format.HTML, "<blockquote>" * 3_000 + "x"),
        (Format.HTML, "<table><tr><td>" * 1_000 + "x"),
        (Format.MARKDOWN, ">" * 20_000 + " x"),
        (Format.MARKDOWN, "- " * 10_000 + "x"),
        (Format.MARKDOWN, "*a_" * 20_000),
        (Format.MARKDOWN, "[" * 20_000 + "x" + "](y)" * 20_000),
        (Format.MARKDOWN, "`" * 10_001 + "x" + "`" * 10_000),
        (Format.MARKDOWN, "<" * 50_000),
        (Format.TEXT, "x\n\n" * 100_000),
        (Format.PROSEMIRROR, {"type": "doc", "content": [{"type": "paragraph"}] * 100_000}),
        (Format.HTML, "x" * (MAX_MARKUP + 1)),
        (Format.MARKDOWN, "x" * (MAX_MARKUP + 1)),
        (Format.HTML, "\ud800"),
        (Format.MARKDOWN, 5),
        (Format.PROSEMIRROR, []),
        (Format.PROSEMIRROR, {"type": "doc", "content": [5]}),
        (Format.PROSEMIRROR, {"type": "doc", "content": [{"type": 5}]}),
        (Format.PROSEMIRROR, {"type": "doc", "content": [{"type": "text"}]}),
        (Format.PROSEMIRROR, {"type": "doc", "content": [{"type": "p", "attrs": {"__proto__": 1}}]}),
        (Format.PROSEMIRROR, {"type": "doc", "content": [{"type": "text", "text": "x", "marks": [{"type": 1}]}]}),
    ],
    ids=str,
)
@pytest.mark.timeout(60)
def test_what_is_large_or_deep_or_wrong_ends_in_time(format: Format, value: Any) -> None:
    replica = Replica(EMPTY, 7)
    try:
        update = replica.edit(Replace("x", format, value, RootType.XML))
    except InvalidEdit:
        assert replica.encode() == EMPTY
    else:
        assert update and replica.read(Format.HTML, "x")


def test_a_root_is_named_where_there_are_several_or_none() -> None:
    replica = Replica(EMPTY, 7)
    with pytest.raises(NoSuchContent, match="name the root"):
        replica.read(Format.MARKDOWN)
    with pytest.raises(NoSuchContent, match="name the root"):
        replica.edit(Replace(None, Format.MARKDOWN, "x"))
    replica.edit(Replace("a", Format.MARKDOWN, "x"))
    assert replica.read(Format.MARKDOWN) == "x\n"
    assert replica.read(Format.TEXT) == "x"
    replica.edit(Replace(None, Format.MARKDOWN, "y"))
    replica.edit(Replace("b", Format.MARKDOWN, "x"))
    replica.edit(Replace("t", Format.TEXT, "x"))
    with pytest.raises(WrongContentType, match="several"):
        replica.read(Format.MARKDOWN)
    for format in (Format.MARKDOWN, Format.HTML, Format.PROSEMIRROR):
        with pytest.raises(WrongContentType, match="of type text"):
            replica.read(format, "t")
    with pytest.raises(WrongContentType, match="of type xml"):
        replica.read(Format.DELTA, "a")
    with pytest.raises(NoSuchContent):
        replica.read(Format.JSON, "nowhere")
    with pytest.raises(WrongContentType, match="not written as JSON"):
        replica.edit(Replace("a", Format.JSON, "<p>x</p>"))
    assert replica.edit(Replace(None, Format.JSON, replica.read(Format.JSON))) == b""


def test_a_passage_of_a_rich_text_is_replaced_where_it_is() -> None:
    replica = Replica(EMPTY, 7)
    replica.edit(Replace("x", Format.MARKDOWN, "one **two** three\n\n- four\n- two more\n"))
    replica.edit(TextReplace("x", "four", "4"))
    replica.edit(TextReplace("x", "two more", "2 more", path=(1, 1)))
    assert replica.read(Format.MARKDOWN, "x") == "one **two** three\n\n- 4\n- 2 more\n"


DRAWING = {
    "type": "excalidraw",
    "version": 2,
    "source": "somewhere",
    "elements": [
        {"id": "b", "type": "text", "version": 3, "versionNonce": 7, "index": "a2", "text": "B"},
        {"id": "a", "type": "line", "version": 1, "versionNonce": 5, "index": "a1", "points": [[0, 0], [1.5, 2]]},
        {"id": "gone", "type": "line", "version": 9, "versionNonce": 5, "isDeleted": True},
    ],
    "appState": {"zoom": 3},
    "files": {"f": {"id": "f", "mimeType": "image/png", "dataURL": "data:image/png;base64,AA==", "created": 5}},
}


def test_a_drawing_is_read_and_written() -> None:
    replica = Replica(EMPTY, 7)
    assert replica.read(Format.EXCALIDRAW)["elements"] == []
    replica.edit(Replace(None, Format.EXCALIDRAW, DRAWING))
    shown = replica.read(Format.EXCALIDRAW)
    assert [element["id"] for element in shown["elements"]] == ["a", "b"]
    assert shown["files"] == DRAWING["files"]
    assert (shown["type"], shown["version"], shown["appState"]) == ("excalidraw", 2, {})
    assert replica.edit(Replace(None, Format.EXCALIDRAW, shown)) == b""
    shown["elements"][0]["points"] = [[0, 0]]
    update = replica.edit(Replace(None, Format.EXCALIDRAW, {**shown, "files": None}))
    assert len(update) < 200
    again = replica.read(Format.EXCALIDRAW)
    assert again["elements"][0] == {**shown["elements"][0], "version": 2}, "it counts for more than the one before"
    assert again["files"] == DRAWING["files"]
    replica.edit(Replace(None, Format.EXCALIDRAW, {"type": "excalidraw", "elements": [], "files": {}}))
    assert replica.read(Format.JSON) == {"elements": [], "images": {}}


def test_of_two_entries_of_an_element_the_one_that_excalidraw_takes_counts() -> None:
    replica = Replica(EMPTY, 7)
    entries = [
        {"id": "a", "version": 2, "versionNonce": 9, "x": 1},
        {"id": "a", "version": 2, "versionNonce": 5, "x": 2},
        {"id": "a", "version": 1, "versionNonce": 1, "x": 3},
        "no element",
    ]
    replica.edit(Replace("elements", Format.JSON, entries))
    (element,) = replica.read(Format.EXCALIDRAW)["elements"]
    assert element["x"] == 2
    replica.edit(Replace(None, Format.EXCALIDRAW, {"type": "excalidraw", "elements": [{**element, "x": 4}]}))
    assert replica.read(Format.JSON, "elements") == ["no element", {**element, "x": 4, "version": 3}]


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"type": "excalidraw"},
        {"type": "excalidraw", "elements": [1]},
        {"type": "excalidraw", "elements": [{"id": "a"}, {"id": "a"}]},
        {"type": "excalidraw", "elements": [{"id": ""}]},
        {"type": "excalidraw", "elements": [], "files": []},
        {"type": "excalidraw", "elements": [], "files": {"f": {"dataURL": "javascript:x"}}},
    ],
    ids=str,
)
def test_what_is_no_drawing_is_refused(value: Any) -> None:
    with pytest.raises(InvalidEdit):
        Replica(EMPTY, 7).edit(Replace(None, Format.EXCALIDRAW, value))


@pytest.fixture(scope="module")
def yjs() -> Iterator[NodeScript]:
    with NodeScript("content_oracle.mjs") as script:
        yield script


@pytest.mark.node
def test_what_markdown_becomes_fits_the_schema_of_tiptap(yjs: NodeScript) -> None:
    for text in [
        *MARKDOWN,
        "\n\n".join(MARKDOWN),
        "- > - x\n",
        "<mark>x</mark>",
        "- ```\n  x\n  ```\n",
        "> \n",
        "- \n",
    ]:
        replica = Replica(EMPTY, 7)
        update = replica.edit(Replace("x", Format.MARKDOWN, text))
        (seen,) = yjs.call([["prosemirror", [update.hex()], "x", "tiptap"]])
        assert "error" not in seen, seen
        assert seen["valid"] is True, (text, seen["valid"])
        assert seen["untouched"], text
        assert seen["root"] == seen["normal"], "nothing is shown in another way than it is stored"


@pytest.mark.node
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_what_y_prosemirror_writes_is_read_as_it_reads_it(yjs: NodeScript, random: Random) -> None:
    tree = samples.blocks(random, special=True, marks=("bold", "italic", "link", "strike", "underline"))
    json = {"type": "doc", "content": as_prosemirror(tree)}
    (update,) = yjs.call([["fromProsemirror", json, "x", "tiptap"]])
    assert isinstance(update, str), update
    replica = Replica(bytes.fromhex(update), 7)
    (seen,) = yjs.call([["prosemirror", [update], "x", "tiptap"]])
    assert ordered(replica.read(Format.PROSEMIRROR, "x")) == ordered(seen["json"])
    assert replica.edit(Replace("x", Format.PROSEMIRROR, seen["json"])) == b""


def ordered(value: Any) -> Any:
    """Return JSON with marks in one order: theirs says nothing."""
    if isinstance(value, list):
        return [ordered(one) for one in value]
    if isinstance(value, dict):
        return {key: sorted(map(key_of, one)) if key == "marks" else ordered(one) for key, one in value.items()}
    return value


@pytest.mark.node
def test_marks_that_overlap_are_stored_under_the_hash_of_y_prosemirror(yjs: NodeScript) -> None:
    values = [(1, None), ("ä", 2.5), (1 << 40, -7)]
    comments = [{"type": "comment", "attrs": {"id": number, "n": other}} for number, other in values]
    both = {"type": "text", "text": "both", "marks": comments}
    one = {"type": "text", "text": "one", "marks": comments[:1]}
    json = {"type": "doc", "content": [{"type": "paragraph", "content": [both, one]}]}
    (theirs,) = yjs.call([["fromProsemirror", json, "x", "overlapping"]])
    ours = Replica(EMPTY, 7)
    update = ours.edit(Replace("x", Format.PROSEMIRROR, json))
    assert Replica(bytes.fromhex(theirs), 8).edit(Replace("x", Format.PROSEMIRROR, json)) == b""
    (seen,) = yjs.call([["prosemirror", [update.hex()], "x", "overlapping"]])
    (expected,) = yjs.call([["prosemirror", [theirs], "x", "overlapping"]])
    assert ordered(seen["json"]) == ordered(expected["json"])
    assert len(hash_of(comments[0])) == 8
