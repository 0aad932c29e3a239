"""Retention and erasure: what goes by its age, and what goes because somebody asked.

**By age** (`trendflow gc`, the daily schedule):

    collector = GarbageCollector(store, RetentionPolicy(…), deleted=Tombstones.load(…))
    plan = collector.plan()                      # changes nothing
    collector.report(plan).as_dict()             # a dry run
    collector.collect(plan).as_dict()            # judges every scope again, then removes what both judgements name

Rules (`video_rule`, `shared_rules`) only find; `collect` alone removes. A run that was written to within the grace is
left alone, and of a run that stays nothing goes that its manifest names.

**On request** (`trendflow delete`, the service):

    eraser = Eraser(store, schemas, key, history=…, executions=…)
    eraser.erase(platform_id, video_id)          # the receipt; repeats and continues. StillAtWork: a run does not stop
    eraser.request(platform_id, video_id)        # only the tombstone and the note; somebody continues
    eraser.continue_all()                        # whoever runs daily
    eraser.lift(platform_id, video_id)           # may be submitted again

`traces` knows every place of the store where a video may be, `lineage` what was made of it and stays: datasets and
models, which the receipt lists. Nothing here knows Dagster; its history is reached through `History`,
its runs through `Executions`.
"""
