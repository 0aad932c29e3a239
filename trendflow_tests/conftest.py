"""Fixtures every test may use. Fixtures of one area live in that area's own conftest."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
CACHE = REPO / ".trendflow" / "cache"

# The settings of a shell, a deployment or a CI service would change what the commands under test do and print. Facts of
# the machine stay.
_OF_THE_MACHINE = {f"TRENDFLOW_{name}" for name in ("HOME", "MODELS", "ONNX_THREADS", "TEST_DATA", "TRITON_ENV")}
for variable in set(os.environ) - _OF_THE_MACHINE:
    if variable.startswith(("AWS_", "DAGSTER_", "FORCE_COLOR", "TRENDFLOW_", "TTY_")):
        del os.environ[variable]

# What is started in the background is often told to ignore these, and so is every process that it starts in turn: no
# command under test could be interrupted.
for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)

# Read when the libraries below are first imported, so they are set before any of them is.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(CACHE / "hypothesis"))
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core; a thread pool per core in every worker would only make them wait for each other.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "TRENDFLOW_ONNX_THREADS"):
        os.environ.setdefault(variable, "1")

# No import may come before the environment is set: numpy reads its threads there, hypothesis its folder.
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis.internal.conjecture import providers  # noqa: E402

from trendflow.models.pool import ModelPool  # noqa: E402
from trendflow_tests.ports import held_ports  # noqa: E402

pytest_plugins = [
    f"trendflow_tests.{name}" for name in ("browser", "s3", "triton") if (REPO / f"trendflow_tests/{name}.py").exists()
]

# Wall-clock deadlines fail on a busy machine. By default every run tries the same examples, so that a failure belongs
# to the change that made it; `HYPOTHESIS_PROFILE=explore` looks for new ones.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeat", parent=settings.get_profile("explore"), derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "repeat")
if settings.get_current_profile_name() == "repeat":
    # Hypothesis also draws literals that it reads out of the project's modules loaded so far, even when derandomized:
    # the examples would depend on which tests the same worker ran before.
    providers._get_local_constants = lambda: providers._local_constants


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def _no_waits_for_the_disk() -> Iterator[None]:
    """What a process handed to the system is lost in a power cut alone, and no test makes one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return REPO


@pytest.fixture(scope="session")
def sample_video(repo_root: Path) -> Path:
    """The video that ships with the project: 8.33 s, 1280x720, 30.1 fps, stereo, a face in every second."""
    return repo_root / "samples" / "hello_face_speech.mp4"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the large test media (`video/`, `audio/`, `snapshots/`); the test is skipped where it is absent."""
    folder = Path(os.environ.get("TRENDFLOW_TEST_DATA") or REPO.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("the large test media are not on this machine (TRENDFLOW_TEST_DATA)")
    return folder.resolve()


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder of the built model weights. Their absence is a broken set-up, so it fails rather than skips."""
    home = Path(os.environ.get("TRENDFLOW_HOME") or REPO / ".trendflow")
    folder = Path(os.environ.get("TRENDFLOW_MODELS") or home / "models")
    if not any(folder.rglob("*.onnx")):
        pytest.fail("the models are not built; run: make setup")
    return folder.resolve()


@pytest.fixture(scope="session")
def pool(models_dir: Path) -> Iterator[ModelPool]:
    """The shipped models, each loaded once per worker; never closed or changed by a test."""
    with closing(ModelPool(models_dir, threads=1)) as shipped:
        yield shipped


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """Returns a loopback TCP port that nobody listens on until this test does."""
    with ExitStack() as held:
        yield lambda: held.enter_context(held_ports(1))[0]
