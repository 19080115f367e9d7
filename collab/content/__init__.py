"""What documents hold, to be read and changed as people and programs know it: JSON, text, Markdown, HTML and others.

Strategy: reading gives plain values; an edit is made in a real CRDT and leaves as the update of that edit, after a
second replica has shown that the update does what was wanted (`replica`). So whoever serves passes on bytes, and never
a document. Two modules can be imported everywhere, for they need no CRDT library: ``edits`` names formats and edits,
``values`` bounds what they hold. All that loads pycrdt belongs into a sandbox process, the client and tests.

===============  ===========================================================================
``edits``        formats, edits and their bounds: plain values that can be pickled
``values``       JSON values: checked, and compared as JSON compares
``difference``   what of two sequences is equal, in bounded time
``shape``        of which type roots are, which surrogate pairs a document holds: found on bytes
``tree``         a rich text as a tree of elements, and what of two trees belongs together
``prosemirror``  trees as ProseMirror JSON
``markdown``     trees as Markdown
``html``         trees as HTML
``board``        drawings as files of Excalidraw
``shared``       read shared types of a document
``texts``        write into a shared text
``nodes``        write into shared XML
``fragments``    shared XML as Markdown, HTML, text and ProseMirror JSON, and back: for everybody who has pycrdt
``structures``   write into shared maps and arrays
``patches``      JSON Patch on maps and arrays
``replica``      a document in a sandbox process, with checked edits
===============  ===========================================================================
"""
