"""A whole cluster in one process, with virtual time and every choice made by a seed (docs/decisions/0023)."""
