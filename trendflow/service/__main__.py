"""`python -m trendflow.service`: the service of the deployment that the environment describes, in the foreground."""

from __future__ import annotations

import logging
import sys

from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.service.assembly import open_service


def main() -> int:
    """Returns the exit code of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # Both tell addresses with every request that they make.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        server = open_service(load_settings())
        server.run()
    except TrendFlowError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


sys.exit(main())
