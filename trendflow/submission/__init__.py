"""Submissions: from what callers ask for to runs that wait in order. Knows neither Dagster nor HTTP.

**Who accepts** (service, command line), in any number of processes:

    inbox = Inbox(store, schemas, clock)
    admission = Admission(limits, free_bytes)
    desk = SubmissionDesk(store, states, inbox, admission, limits=limits, deleted=lambda: Tombstones.load(…))

    request = parse_request(body)                                            # a caller's JSON
    draft = draft_request(request, profiles, schemas, submission_id=…, user_id=…)
    request.video_document, request.snapshot                                 # what no message may hold
    entries = parse_list(data, "csv", local_files=…) | channel_entries(url)  # lists
    drafts = draft_entries(entries, profile, profiles, schemas, submission_id=…, user_id=…)

    submission = desk.submit(submission_id, user_id, drafts)                 # again: the same answer
    for item in submission.items: New | Cached | Duplicate | Exists | Refused

`profiles(name, overrides)` gives the `config_hash` and versions the deployment computes for itself. A submission id
begins with its day; `new_submission_id(clock.utc())` makes one. A refusal that time heals is `NotNow`.

**Who schedules** (one process, the one with the `GlobalManager`):

    level1 = Level1Queue(store, inbox, manager, clock, admission, limits=limits)
    level1.step()                      # accepted -> pending; windows of 10 s -> batches
    for message in level1.take(n):     # in order; the same ones again until they are queued
        …                              # run request, state, manifest, partition, Dagster run
        level1.queued(message)         # once the run is seen there

**Who asks what became of it**:

    outcomes = Outcomes(store, states, inbox, required)      # `required(profile)`: components whose failure fails a run
    report = submission_report(submission, outcomes.of(submission), dead_letters)       # `submission_report_v1`
    retry_drafts(failed_messages, profiles, submission_id, share_text)                  # drafts of another submission

**Who finishes**: `RunIndex(store).record(identity, finished_at)` for every run that succeeded.

**Upkeep**: `inbox.remove_before(day)`; for a deleted video `inbox.forget(…)`.
"""
