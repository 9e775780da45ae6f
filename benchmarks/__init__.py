"""Measurements, each beside a limit or a peer that was measured in the same run: `python -m benchmarks` takes all."""
