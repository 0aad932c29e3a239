"""Alarms about the deployment as a whole: what it looks at, when it calls, and what stands in the store of it.

    ended = EndedRuns(states, results, text_readers).latest(limits.window)   # what became of the newest runs
    found = [*run_alarms(ended, now, limits), *slow_components(cost_rows, now, limits)]
    changes = AlarmBook(store, schemas).update(found, at=now)                # raised, ended; the rest goes on

An alarm names a rule and a subject of a closed vocabulary (an error code, an empty reason, a component), never a video,
a run or a user. Who calls people is up to those who read `alarms/alarms.json`, its metric or the log.
"""
