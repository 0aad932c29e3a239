"""How long what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class RetentionPolicy:
    """Ages after which data go.

    `frames`: decoded frames and audio. `raw_text`: texts under `_tmp_text/`. `derived`: a run with everything it made.
    `successes`: newest successes of one configuration of a video that outlive older ones. `state`: state files and
    journal after the last event. `unfinished`: a run that nobody continued; its frames are gone by then.
    `submissions`: what was asked for, with the run ids it holds; never while one of its runs has not ended.
    `grace`: a run that was written to within this time may be at work and is left alone wholly; anything unnamed that
    is younger may be about to be named.
    """

    frames: timedelta = timedelta(days=7)
    raw_text: timedelta = timedelta(days=7)
    derived: timedelta = timedelta(days=60)
    successes: int = 3
    state: timedelta = timedelta(days=7)
    unfinished: timedelta = timedelta(days=7)
    submissions: timedelta = timedelta(days=30)
    grace: timedelta = timedelta(hours=24)
