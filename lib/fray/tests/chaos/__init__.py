"""Chaos: a cluster of real processes, workloads, random faults, and a ledger outside of Fray that tells what happened."""
