"""`python -m trendflow.service`: the service of the deployment that the environment describes, in the foreground."""

from __future__ import annotations

import sys

from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.logs import configure_logging
from trendflow.service.assembly import open_service


def main() -> int:
    """Returns the exit code of the process."""
    try:
        settings = load_settings()
        configure_logging(settings.log_format or "text", settings.log_level)
        server = open_service(settings)
        server.run()
    except TrendFlowError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


sys.exit(main())
