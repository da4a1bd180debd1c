"""SVG(0) with Retrace and replay: pure functions of parameters and windows of experience."""
