"""Search: what every way to spend candidates has in common."""
