"""A project with notes that people edit together."""
