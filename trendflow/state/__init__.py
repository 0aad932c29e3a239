"""State of runs and of the deployment: a journal of events, files that follow from it, and who may write them.

**What there is.** One log per run (levels 2 and 3) and one of the deployment (level 1). An event is an object named by
its number and claimed by put-if-absent (`journal`); what it may hold is `events` with `schemas/state_event_v1.json`.
The state files are pure functions of their log (`level1`, `level2`, `level3`, `replay`) and are stored as checkpoints
(`checkpoints`): they may lag behind the log and never lead it. Recovery is checkpoint plus tail (`log_view`). Each file
has one manager (`file_manager`) whose epoch the log knows; a later manager of the same file fences an earlier one off.
What may follow what stands in `transitions`. Nothing here knows Dagster.

**Who executes a run** holds one `RunManager` for it in its process, shared by all its threads. A run has one such
process at a time: another one that opens it takes it over, and there is no way to share it.

    states = StateStore(object_store, schemas)
    plan = [Planned(name, processor, required, depends_on), ...]             # enabled components in graph order
    RunManager.create(states, identity, profile, plan, holder=…)             # submission: pending
      .queued()
    manager = RunManager.open(states, run_path, holder=worker)               # a worker takes over; fences others off
    manager.begin(worker=…, device=…, resolved_models=…, knobs=…)            # running; after a lost worker or an end:
                                                                             # recovering, a new attempt, running
    manager.component_started(name, owner=…)
    manager.component_progress(name, done, total)                            # as often as one likes
    manager.component_finished(name, "success" | "empty", paths, cache_hit=…)  # a cached one needs no start
    manager.component_failed(name, error, paths)
    manager.component_skipped(name, because)
    manager.retry_scheduled(name, error_code, wait_sec)                      # then component_started again
    manager.oom_reduced(name, batch_size, reduced_to)
    manager.cache_check_failed(name, error_code)
    manager.component_warning(name, code);  manager.warning(code)
    manager.flag("frames_ready", by=name)
    manager.costs_recorded(rows, components);  manager.resumed();  manager.completed_from_cache()
    manager.cancel_requested                                                 # after follow(), at unit boundaries
    manager.succeed() | manager.fail(error) | manager.cancel()               # also writes the exports
    manager.checkpoint_if_due()                                              # with every heartbeat
    manager.close()

`Fenced` means: another process has the run, stop and store nothing more. `IllegalTransition` means: a bug of the
caller, nothing was written. Reporting again what is so already is allowed and records nothing.

**Who watches runs from outside** (run-status sensors, reconciliation) must not take over a run that a worker holds:

    RunManager.open(states, run_path, holder=…, only_if={"running", "recovering"})   # None: the run is elsewhere by now
    GlobalManager.open(states, holder=…, knobs=…)                            # one process, the daemon
      .run_status(run_path, status, priority=…, stage=…, worker={"id", "device"})
      .assign_batch(batch_id, run_paths, opened_at=…, closes_at=…)
      .checkpoint_if_due() .fold(keep_since) .close()

**Who reads** (API, command line):

    states.read_run(run_path) -> RunView | None                              # level 2, level 3, all components
    states.read_global()                                                     # level 1 with places in the queue
    states.events(run_path, after=seq)                                       # resumable by number, also when folded
    states.request_cancel(run_path)                                          # False: the run has ended
    status_document(view, queue_position=…, expected_sec=…), etag(document)

**What stays of a run that ended** is written beside its files (`export`): its events as lines of one file, and what it
took and with what (`runtime_report`), which follows from them. A later attempt replaces both.

**Upkeep**: `fold_run(states, run_path, holder=…)` turns the event objects of a run that ended into its export.
"""
