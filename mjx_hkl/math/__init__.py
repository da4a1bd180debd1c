"""Gaussians, KL, AR(1), Retrace: pure functions on arrays, each with its equation."""
