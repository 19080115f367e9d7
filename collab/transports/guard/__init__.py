"""What stands before every request: addresses of peers, origins, limits, the audit log, the listener."""
