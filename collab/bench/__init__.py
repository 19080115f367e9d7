"""`collab bench`: a load generator for Yjs servers.

Strategy: real clients as far as the server can tell (RFC 6455, y-protocols, valid Yjs updates that
integrate to a text known beforehand), but each one costs the generator only what it must: frames are
built from pre-encoded parts, received frames are recognised by their bytes, and what a frame carries
is read once however many clients get it. So one core of Python drives a server on another core, and
every report says how busy that core was, so that nobody mistakes the generator's limit for the
server's. Knows nothing of the server's own code but ``collab.protocol``.
"""
