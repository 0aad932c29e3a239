"""Kill -9 at every write point of a run: the store stays valid and the next attempt ends in the same digests."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from trendflow.config import Settings
from trendflow.contracts.manifest import Manifest, find_row
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import view_run
from trendflow.orchestration.validation import validate_run
from trendflow.orchestration.wrapper import persist, run_component, run_status
from trendflow_tests.orchestration.attempts import (
    VIDEO_ID,
    Attempt,
    Template,
    WritePoint,
    deployment_for,
)
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.runs import Execute, Submit, digests, origins, problems, write_graph

# The warm process and the undisturbed run are made once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("crash")

COMPONENTS = ("segmenter", "cut_detection", "loudness_extractor")
# The pictures of a report are stored one like the other: the first and the last stand for all of them.
PICTURE, PICTURES = "write store/render_cache/thumbnails", 15

PROCESSORS = ("segmenter", "visual", "audio")
# The state `pending`: it is accepted, and each of its managers started. What follows, an execution records.
STATE_EVENTS = 2 + len(PROCESSORS)
SUBMISSION = {
    "create store/state/run_request.json": 1,
    **{f"create store/state/events/{number:012d}.json": 1 for number in range(1, STATE_EVENTS + 1)},
    "create store/state/run_state.json": 1,
    **{f"create store/state/state_{processor}.json": 1 for processor in PROCESSORS},
    "create store/result_store/manifest.json": 1,
}
DECODING = {
    "write scratch/frames/audio/metadata.json": 1,
    "write scratch/frames/audio/segments.json": 1,
    "write scratch/frames/video/metadata.json": 1,
}
FRAMES = {
    "write store/frames_store/video/batch_00000.npy": 1,
    "write store/frames_store/video/batch_00001.npy": 1,
    "write store/frames_store/audio/audio.wav": 1,
    "write store/frames_store/audio/audio_full.wav": 1,
    "write store/frames_store/audio/metadata.json": 1,
    "write store/frames_store/audio/segments.json": 1,
    "write store/frames_store/video/metadata.json": 1,
}
REPLACED_FRAMES = {"remove store/frames_store/video/metadata.json": 1, **FRAMES}
ARTIFACTS = {
    "create store/result_store/segmenter/dense_signals.npz": 1,
    "create store/result_store/segmenter/segmenter.npz": 1,
    "create store/result_store/cut_detection/cut_detection.npz": 1,
    "create store/result_store/loudness_extractor/loudness_extractor.npz": 1,
}
# The source's sha256, where its frames are, what decoding told of it; then one row per component.
ROWS = {"write store/result_store/manifest.json": 3 + len(COMPONENTS)}
CLOSING = {
    "close store/result_store/manifest.json": 1,
    PICTURE: PICTURES,
    "write store/render_cache/report.html": 1,
}
BEFORE_THE_FIRST_ARTIFACT = WritePoint("create store/result_store/segmenter/dense_signals.npz", 1)


@dataclass(frozen=True)
class Results:
    """Content digests by component and artifact, and the sha256 of the readable frames."""

    digests: dict[str, dict[str, str]]
    frames: dict[str, str] | None


@dataclass(frozen=True)
class Scenario:
    """What the store holds before the attempt to be killed, and which write points that attempt visits."""

    earlier_run: bool
    """Another run of the video stands there, complete but for the loudness: everything else is taken from it."""
    second_attempt: bool
    """The run was killed once already, after its frames and before its first artifact."""
    points: dict[str, int]
    """How often the killed attempt publishes what; the names below `within` only."""
    computed: set[str]
    within: str = ""

    def visits(self, point: WritePoint) -> bool:
        return self.within in point.name


SCENARIOS = {
    "first run": Scenario(
        earlier_run=False,
        second_attempt=False,
        points={**SUBMISSION, **DECODING, **FRAMES, **ARTIFACTS, **ROWS, "create store/index/artifacts": 3, **CLOSING},
        computed=set(COMPONENTS),
    ),
    "run that decodes again after a crash": Scenario(
        earlier_run=False,
        second_attempt=True,
        points=REPLACED_FRAMES,
        computed=set(COMPONENTS),
        within="frames_store",
    ),
    "run that copies frames and re-stamps": Scenario(
        earlier_run=True,
        second_attempt=False,
        points={**SUBMISSION, **FRAMES, **ARTIFACTS, **ROWS, "create store/index/artifacts": 1, **CLOSING},
        computed={"loudness_extractor"},
    ),
    "run that copies frames again after a crash": Scenario(
        earlier_run=True,
        second_attempt=True,
        points=REPLACED_FRAMES,
        computed={"loudness_extractor"},
        within="frames_store",
    ),
}


@pytest.fixture(scope="module")
def attempt(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Attempt:
    """The run to be killed, of a clip whose frames fill more than one batch. Its home is free to choose."""
    folder = tmp_path_factory.mktemp("crash")
    source = write_clip(folder / "synthetic.mp4", seconds=7)
    graph = write_graph(folder / "component_graph.yaml", *COMPONENTS)
    return Attempt(Settings(home=folder / "warm", models=models_dir, graph_file=graph), source, "killed-run")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, attempt: Attempt) -> Iterator[Template]:
    running = Template(tmp_path_factory.mktemp("template"), attempt)
    yield running
    running.close()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, attempt: Attempt, template: Template) -> Results:
    """What a run gives that nothing disturbed, in a store of its own."""
    undisturbed = at(tmp_path_factory.mktemp("undisturbed"), attempt)
    assert [ended.exit_code for ended in template.run((undisturbed, None))] == [0]
    return results_of(undisturbed)


def at(home: Path, attempt: Attempt) -> Attempt:
    return replace(attempt, settings=attempt.settings.model_copy(update={"home": home}))


def results_of(attempt: Attempt) -> Results:
    run = view_run(deployment_for(attempt.settings), f"{VIDEO_ID}/{attempt.run_id}")
    return Results(digests(run), readable_frames(attempt))


def readable_frames(attempt: Attempt) -> dict[str, str] | None:
    """File name → sha256 of a run's frames folder; None without the mark that says it is complete.

    Documents carry the identity of their run and the time of writing, so of them only the presence counts.
    """
    folder = attempt.settings.home / "store" / "frames_store" / attempt.run_path
    if not (folder / "video" / "metadata.json").is_file():
        return None
    return {name: "present" if name.endswith(".json") else digest for name, digest in contents(folder).items()}


def contents(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every object below a folder."""
    files = (path for path in folder.rglob("[!.]*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_sound(attempt: Attempt, expected: Results) -> None:
    """Whatever a reader may find after a crash is right: runs, frames, index."""
    deployment = deployment_for(attempt.settings)
    for run_path in deployment.results.run_paths():
        assert problems(deployment, run_path) == []
    assert readable_frames(attempt) in (None, expected.frames)
    for entry in (attempt.settings.home / "store" / "index").rglob("[!.]*.json"):
        found = json.loads(entry.read_bytes())
        manifest = deployment.results.read_manifest(found["run_path"])
        row = None if manifest is None else find_row(manifest, found["component"])
        assert row is not None
        assert row["idempotency_key"] == entry.stem


def assert_completes(attempt: Attempt, expected: Results) -> None:
    """The next attempt, in this process, ends well and with the results of the undisturbed run."""
    deployment = deployment_for(attempt.settings)
    run = attempt(deployment)
    assert results_of(attempt) == expected
    assert run_status(run, run.manifest()) == "success"
    assert validate_run(deployment, run.run_path) == []
    assert run.identity.run_id in deployment.store.get(f"render_cache/{run.run_path}/report.html").decode()


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_kill_at_every_write_point(
    tmp_path: Path, attempt: Attempt, template: Template, expected: Results, scenario: Scenario
) -> None:
    before = at(tmp_path / "before", attempt)
    earlier = replace(before, run_id="earlier-run", components=COMPONENTS[:2])
    before.settings.home.mkdir()
    if scenario.earlier_run:
        assert template.run((earlier, None))[0].exit_code == 0
    if scenario.second_attempt:
        assert template.run((before, BEFORE_THE_FIRST_ARTIFACT))[0].exit_code == -signal.SIGKILL
    earlier_run = contents(earlier.settings.home / "store" / "result_store" / earlier.run_path)

    def in_a_copy(name: str) -> Attempt:
        return at(shutil.copytree(before.settings.home, tmp_path / name), attempt)

    whole = in_a_copy("whole")
    (reference,) = template.run((whole, None))
    assert reference.exit_code == 0
    run = view_run(deployment_for(whole.settings), f"{VIDEO_ID}/{whole.run_id}")
    assert {row["name"] for row in run.manifest()["components"] if not row["cache_hit"]} == scenario.computed
    visited = [point for point in reference.points if scenario.visits(point)]
    assert Counter(point.name for point in visited) == scenario.points

    points = [point for point in visited if point.name != PICTURE or point.count in (1, PICTURES)]
    for number, point in enumerate(points):
        killed = in_a_copy(f"killed-{number}")
        (ended,) = template.run((killed, point))
        assert (ended.exit_code, ended.points[-1]) == (-signal.SIGKILL, point)
        assert_sound(killed, expected)
        assert_completes(killed, expected)
        assert contents(killed.settings.home / "store" / "result_store" / earlier.run_path) == earlier_run
        shutil.rmtree(killed.settings.home)


def test_two_attempts_at_one_run_at_once_both_end_well(
    tmp_path: Path, attempt: Attempt, template: Template, expected: Results
) -> None:
    run = at(tmp_path, attempt)
    replace(run, components=())(deployment_for(run.settings))  # submitted, and nothing else
    assert [ended.exit_code for ended in template.run((run, None), (run, None))] == [0, 0]
    assert results_of(run) == expected
    assert_sound(run, expected)


@pytest.mark.parametrize("later_overtakes", [False, True])
def test_an_attempt_overtaken_between_file_and_row_contradicts_nothing(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute, later_overtakes: bool
) -> None:
    """Both attempts have computed the same; one stores its file, the other everything, then the first its row."""
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    attempts = [run_component(run, "loudness_extractor") for _ in range(2)]
    overtaken, other = attempts if later_overtakes else attempts[::-1]
    update = deployment.results.update_manifest

    def after_the_other(run_path: str, change: Callable[[Manifest], Manifest]) -> Manifest:
        vars(deployment.results).pop("update_manifest")
        persist(run, other)
        return update(run_path, change)

    vars(deployment.results)["update_manifest"] = after_the_other
    persist(run, overtaken)
    assert origins({"first": overtaken, "second": other}) == {"first": "computed", "second": "computed"}
    assert validate_run(deployment, run.run_path) == []
