"""``collab doctor``: look at everything that a server needs, and say what is wrong and what to do.

Strategy: each check looks at the real thing (it connects, reads, asks) and gives findings; it changes nothing. None of
them raises: what goes wrong on the way is the finding. ``findings`` has what a finding is, ``machine`` looks at this
machine, ``database`` at the database, its schema and the bus, ``certificate`` at TLS, ``public`` goes through the
public address and whatever proxies stand there.
"""
