"""`make bench`: every measurement, one after the other. Compare figures within one run only: machines are noisy."""

from __future__ import annotations

import platform
import sys

from benchmarks import analytics, gateway, memory, postgres, pricing, redis


def main() -> None:
    print(f"Python {platform.python_version()} on {platform.machine()}, {sys.platform}\n")
    for module in (pricing, memory, gateway, postgres, redis, analytics):
        module.main()
        print()


if __name__ == "__main__":
    main()
