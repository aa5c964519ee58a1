"""Studies to start from; ``python -m examples.<name>.make_data`` writes the data of those that generate theirs."""
