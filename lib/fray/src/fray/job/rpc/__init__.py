"""Fray's own machines: a controller, its workers, and the context that talks to them over Connect RPC."""
