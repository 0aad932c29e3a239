"""What the command line does, one module per command. `trendflow.cli` only parses."""
