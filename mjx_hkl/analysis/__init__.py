"""What is made of runs and agents: learning curves, KL fields, videos, benchmarks, profiles."""
