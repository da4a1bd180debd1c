"""Hierarchical KL-regularized reinforcement learning on MuJoCo MJX."""

__version__ = "0.1.0"
