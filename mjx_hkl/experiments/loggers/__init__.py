"""Loggers: where the numbers of a run go beside its metrics.jsonl."""
