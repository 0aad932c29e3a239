"""Runs through a broker: a launcher puts them into queues, warm workers execute them whole, workers watch each other.

    launcher (daemon) ──message──▶ queue <device>.<priority> ──▶ worker: main process ──▶ child: the run, models loaded

The main process of a worker takes messages, says every 15 s that it lives and what it holds (`pulse`), and looks for
messages that nobody holds any more (`run_health`). Its one child imports the code once and executes runs one after the
other (`run_task`). A message is acknowledged when the run has ended in Dagster, not before.
"""
