"""Recursions over the steps of a window."""

UNROLL = 16
"""Steps that are compiled as one: most windows have no more, and then there is no loop.

A GPU launches several kernels each time round a loop, however little they compute.
"""
