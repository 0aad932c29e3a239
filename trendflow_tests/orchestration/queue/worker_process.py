"""A worker as in production, but one that notices silence sooner. Arguments: name, seconds of silence."""

import sys

from trendflow.orchestration.queue.names import Rhythm
from trendflow.orchestration.queue.worker import run_worker

if __name__ == "__main__":
    run_worker(
        sys.argv[1], ["cpu"], Rhythm(0.5, float(sys.argv[2]), 0.5), code=["trendflow_tests.orchestration.queue.jobs"]
    )
