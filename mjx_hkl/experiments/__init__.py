"""Recipes become runs: training with its files, evaluation, export, benchmarks."""
