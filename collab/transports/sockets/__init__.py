"""WebSockets: what both wire protocols share, and one file for each."""
