"""What nodes tell each other: a bus that is only fast, behind a port. The log is the truth."""
