"""Schedules, targets, processes, time laws and sampling grids: pure jax, on which every other room stands."""
