"""Bring items of equal keys together: scatter on one side of a stage boundary, merge on the other."""
