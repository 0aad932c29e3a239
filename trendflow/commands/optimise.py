"""`trendflow models optimise`: a faster variant of a model, with the proof of what it costs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trendflow.commands.console import err, out, table
from trendflow.commands.files import require_folder, write_output
from trendflow.config import Settings, load_settings
from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.recipes import require_installed
from trendflow.models.store import WeightsStore

if TYPE_CHECKING:
    from trendflow.optimisation.clips import Clip
    from trendflow.optimisation.pipeline import Maker, Optimised
    from trendflow.optimisation.roles import Judged

PLAN = "tensorrt"
TARGETS = ("int8", "fp16", PLAN)
DEFAULT_RUNS = 20


def optimise(name: str, to: str, frames: Sequence[Path], runs: int | None, target: Path) -> int:
    """Make the variant, judge it, and write it with its report and its catalogue entry into `target`.

    A variant that misses a limit or is no faster leaves its report alone and raises `artifact_validation_failed`.
    """
    if to not in TARGETS:
        raise TrendFlowError("config_invalid", f"--to is one of {', '.join(TARGETS)}, not {to!r}.")
    if frames and runs is not None:
        raise TrendFlowError("config_invalid", "Give video files with --frames or a number of --runs, not both.")
    from trendflow.optimisation.pipeline import optimise as make
    from trendflow.optimisation.pipeline import require_reference
    from trendflow.optimisation.roles import judged_by

    settings = load_settings()
    entry = Catalogue.load()[name]
    judged = judged_by(entry)
    require_reference(entry)
    # Everything that can be known before videos are decoded and models are made, which takes long.
    require_installed(entry.name, ("onnx",))
    require_folder(target)
    WeightsStore(settings.models_dir).verify(entry)
    with ExitStack() as stack:
        maker = stack.enter_context(_plan_maker(settings, entry)) if to == PLAN else _onnx_maker(to)
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="trendflow-frames-"))
        clips = _clips(settings, judged, frames, runs, Path(scratch))
        made = make(entry, settings.models_dir, clips, maker, err.print)
    publish(made, target)
    return 0


def _onnx_maker(to: str) -> Maker:
    from trendflow.optimisation.onnx_variants import MAKERS

    return MAKERS[to]


@contextmanager
def _plan_maker(settings: Settings, entry: CatalogueEntry) -> Iterator[Maker]:
    """Builds plans; what TensorRT timed is kept for the next build on the same kind of GPU."""
    from trendflow.optimisation.tensorrt import PlanBuilder

    builder = PlanBuilder.here(entry)
    timings = settings.home / "tensorrt" / f"{builder.identity.tag}.timings"
    if timings.is_file():
        builder.timing = timings.read_bytes()
    yield builder.candidates
    write_output(timings, builder.timing)


def publish(made: Optimised, target: Path) -> None:
    """Write report, variant and catalogue entry, of a variant that may not be published the report alone.

    Raises `artifact_validation_failed` for such a one.
    """
    from trendflow.optimisation.catalogue_entry import render_entry, variant_file
    from trendflow.optimisation.report import encode_report

    report = encode_report(made.report)
    files = {f"{made.name}.parity.json": report}
    if made.published:
        files[variant_file(made.report)] = made.data
        entry = render_entry(made.report, sha256_hex(made.data), sha256_hex(report))
        files[f"{made.name}.catalogue.yaml"] = entry.encode()
    for file, data in files.items():
        write_output(target / file, data)
        out.print(str(target / file), highlight=False, soft_wrap=True)
    _print(made)
    if not made.published:
        raise TrendFlowError(
            "artifact_validation_failed", f"{made.name} is not published: {'; '.join(made.report['reasons'])}."
        )


def _clips(settings: Settings, judged: Judged, frames: Sequence[Path], runs: int | None, scratch: Path) -> list[Clip]:
    from trendflow.optimisation.clips import MIN_VIDEOS, clips_of_files, clips_of_runs, video_files
    from trendflow.orchestration.deployment import open_deployment

    deployment = open_deployment(settings)
    component = judged.spec.name
    if not frames:
        found = clips_of_runs(deployment.results, deployment.store, component, runs or DEFAULT_RUNS, scratch)
        if len(found) < MIN_VIDEOS:
            raise TrendFlowError(
                "input_constraint_violated",
                f"The store has frames of {len(found)} videos for {component} and {MIN_VIDEOS} are needed; process "
                "more videos, or name video files with --frames.",
            )
        return found
    decl = deployment.graph.components[component].sampling
    if decl is None or decl.min is None or decl.target is None or decl.max is None:
        raise TrendFlowError("config_invalid", f"{component} samples no frames.")
    return clips_of_files(video_files(frames), component, (decl.min, decl.target, decl.max), scratch)


def _print(made: Optimised) -> None:
    report = made.report
    rows = [
        [
            limit["metric"],
            "unknown" if report["metrics"][limit["metric"]] is None else f"{report['metrics'][limit['metric']]:.4f}",
            f"{limit['relation']} {limit['bound']:g}",
            "[green]holds[/]" if limit["holds"] else "[red]missed[/]",
        ]
        for limit in report["limits"]
    ]
    out.print(table(made.name, ["measure", "value", "limit", "verdict"], rows, right=("value",)))
    speed = report["speed"]
    out.print(
        f"{speed['speedup']:.2f} times the speed, {len(made.data) / report['reference']['bytes']:.2f} of the size"
    )
