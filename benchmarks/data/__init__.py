"""The data workloads: their inputs, what they do, and how their outputs are checked."""
