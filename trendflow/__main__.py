"""`python -m trendflow`."""

from trendflow.cli import main

main()
