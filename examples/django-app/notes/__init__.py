"""Notes that people edit together."""
