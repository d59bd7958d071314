"""What the middleware costs, as ratios: `python -m tests.benchmarks`.

What it holds: `python -m tests.benchmarks.memory`.
"""
