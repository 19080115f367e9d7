"""Whole databases as one file, and back: consistent, checked, sealed by a key if wanted.

``format`` is the file, ``database`` reads and fills tables, ``moment`` takes a database back to a time,
``documents`` brings single documents back. Nothing of it is loaded by a serving process.
"""
