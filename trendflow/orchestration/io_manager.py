"""The Dagster IO manager: artifacts go to the store as NPZ with meta and a manifest row, and come back as arrays."""

from typing import Any

from dagster import ConfigurableIOManager, InputContext, OutputContext, ResourceDependency

from trendflow.components.base import Upstream
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import find_row
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.retries import failure_tags
from trendflow.orchestration.work import Finished
from trendflow.orchestration.wrapper import store


class ArtifactIOManager(ConfigurableIOManager):
    """Persists `Finished` results of a partition and loads stored artifacts as `Upstream`.

    The key of an object follows from asset key and partition: `result_store/<platform>/<video>/<run>/<asset>/`.
    """

    trendflow: ResourceDependency[TrendFlowResource]

    def handle_output(self, context: OutputContext, obj: Finished) -> None:
        try:
            row = store(self.trendflow.run(context.partition_key), obj)
        except TrendFlowError as error:
            # The step is let go of and cannot say it: whether the run may be launched again depends on it.
            step = context.step_context
            tags = failure_tags(step.dagster_run.tags, error.error_code, obj.retry_count)
            step.instance.add_run_tags(context.run_id, tags)
            raise
        main = row["artifacts"][0]
        context.add_output_metadata(
            {
                "artifact": main["path"],
                "sha256": main["sha256"],
                "bytes": sum(int(artifact["size"]) for artifact in row["artifacts"]),
            }
        )

    def load_input(self, context: InputContext) -> Upstream:
        """The main artifact of the upstream asset. Raises `dependency_missing` when the run has no usable one."""
        run = self.trendflow.run(context.partition_key)
        name = context.asset_key.path[-1]
        row = find_row(run.manifest(), name)
        if row is None or row["status"] == "error":
            raise TrendFlowError("dependency_missing", f"This run holds no usable {name}.", kind="artifact")
        sha256: Any = row["artifacts"][0]["sha256"]
        stored = run.deployment.results.read_artifact(run.run_path, name, expected_sha256=sha256)
        return Upstream(name, row["status"], row["empty_reason"], stored.arrays, stored.meta)
