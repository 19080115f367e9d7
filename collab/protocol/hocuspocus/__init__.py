"""The Hocuspocus protocol: its messages as bytes, and a socket of it as a state machine."""
