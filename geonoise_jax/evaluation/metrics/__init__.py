"""Metrics of a trained model: one literal table of all, each a function of the same inputs."""
