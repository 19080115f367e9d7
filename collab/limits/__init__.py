"""How much each may have: bounds, buckets, memory; no I/O but reading the process's own size."""
