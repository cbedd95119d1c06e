"""Contexts: one protocol, and the machines under it."""
