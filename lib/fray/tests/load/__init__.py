"""Limits under load: a real controller, real workers and clients, and peers that misbehave; memory as the system counts it.

Each scenario drives a cluster of processes of its own, returns its figures, and holds each against a stated bound.
``python -m load`` runs them at full size, ``test_load.py`` small ones.
"""
