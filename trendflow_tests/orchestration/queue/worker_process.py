"""A worker as in production that looks more often and notices silence sooner. Arguments: name, seconds of silence."""

import sys

from trendflow.orchestration.queue.names import Rhythm
from trendflow.orchestration.queue.worker import run_worker

if __name__ == "__main__":
    rhythm = Rhythm(beat_s=0.5, silent_s=float(sys.argv[2]), look_s=0.5, cancel_look_s=0.5)
    run_worker(sys.argv[1], ["cpu"], rhythm, code=["trendflow_tests.orchestration.queue.jobs"])
