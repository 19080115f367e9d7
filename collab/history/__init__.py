"""Who wrote what, and what changed between two points of the log: on bytes, without a CRDT library.

Strategy: an insertion has an ID, so a row says by itself what it inserts. What it deletes is known only when it is
integrated, for integrating deletes more than an update names: a value of a key that lost, what came below something
deleted. So ``items`` integrates updates as yjs does, but knows of content no more than where it lies. All of this is
sans-I/O; it runs in sandbox processes, since it takes time in proportion to the document. docs/decisions/0039 says why
no library does it. From bottom to top:

===============  ==========================================================================
``ranges``       client -> ranges of clocks, each with a number
``items``        the items of a document in their order, deleted ones too
``attribution``  who has inserted and deleted which ranges, and its encoding
``rows``         rows on their way into a sandbox process
``tracing``      from rows of a log to their attribution
``emptying``     an update without the content of some ranges, and snapshots as yjs encodes them
``values``       plain values in content, as JSON holds them
``showing``      attribution and changes as JSON, text and ProseMirror JSON
``tasks``        what the sandbox is asked, and what it answers
===============  ==========================================================================
"""
