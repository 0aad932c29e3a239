"""`python -m trendflow.commands.keeper`: the process that keeps the fleet of TRENDFLOW_HOME running. `up` starts it."""

from __future__ import annotations

import signal
import sys
import threading

from trendflow.commands.fleet import fleet_of
from trendflow.config import load_settings
from trendflow.fleet.environment import fleet_folder
from trendflow.fleet.keeper import Keeper
from trendflow.logs import configure_logging


def main() -> int:
    """Returns the exit code of the process: 0 once it was ended, or the fleet was."""
    settings = load_settings()
    configure_logging(settings.log_format or "text", settings.log_level)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    Keeper(fleet_folder(settings.home), lambda: fleet_of(settings)).run(stop)
    return 0


sys.exit(main())
