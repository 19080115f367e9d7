"""The server below an ASGI server: one more way in to the same handlers, rooms and protocols."""
