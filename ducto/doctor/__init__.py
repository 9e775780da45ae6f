"""`ducto doctor`: the coverage self-test on the command line."""
