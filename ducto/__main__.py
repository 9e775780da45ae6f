"""`python -m ducto`."""

from ducto.cli import main

main()
