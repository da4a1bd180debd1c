"""Policies as ONNX: written from an agent, and played in its worlds without JAX's copy of it."""
