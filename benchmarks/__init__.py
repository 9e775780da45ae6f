"""Measurements. Each prints its figure beside a limit or a peer measured in the same run; see `python -m benchmarks`."""
