"""Recipes become runs: training with its files, evaluation, transfer, agents on disk."""
