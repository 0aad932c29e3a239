"""What `trendflow doctor` examines of the machine and of what is installed on it."""

from __future__ import annotations

import importlib
import platform
import resource
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trendflow.commands.console import human_bytes
from trendflow.commands.examination import Examination
from trendflow.config import Settings, ensure_home
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.models.device import cuda_devices
from trendflow.service.health import disk_check

_DISTRIBUTION = "trendflow"
_NATIVE = ("av", "cv2", "librosa", "numpy", "obstore", "onnxruntime", "pyloudnorm")
"""Packages with compiled parts, which may be installed and still not load."""
_DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "aac", "mp3", "opus", "vorbis")
_SHARED_MEMORY = Path("/dev/shm")
# The batches of two workers on their way to the model server and back.
_SERVED_SHM_BYTES = 512_000_000
# Of PostgreSQL, which takes some for every query that runs in parallel.
_LEAST_SHM_BYTES = 32_000_000
# SeaweedFS, Valkey and PostgreSQL hold files and connections by the hundreds.
_OPEN_FILES = 4096
_SHOWN = 5
_DRIVER = Path("/proc/driver/nvidia/version")


def machine_examinations(settings: Settings, uses_model_server: bool) -> list[Examination]:
    """Python, packages, codecs, GPUs, disk, shared memory and limits of this machine."""
    shm_bytes = _SERVED_SHM_BYTES if uses_model_server else _LEAST_SHM_BYTES
    return [
        Examination("python", _python, "Install a Python that trendflow supports and create its environment anew."),
        Examination("packages", _packages, "Install the packages again: make setup, or pip install trendflow[fleet]."),
        Examination(
            "pins",
            _pins,
            "Install with 'pip install --constraint constraints.txt' to have the set that is tested.",
            needed=False,
        ),
        Examination("native libraries", _native, "Install the named packages again, for this machine's processor."),
        Examination("ffmpeg", _ffmpeg, "Install the package av again from its wheel, which brings all decoders."),
        Examination("gpu", _gpu, "Install trendflow[cuda] and a driver whose version the package takes.", needed=False),
        Examination(
            "disk",
            lambda: _disk(settings),
            "Free space, move TRENDFLOW_HOME to a larger disk, or lower TRENDFLOW_MIN_FREE_GB; 'trendflow gc' helps.",
        ),
        Examination(
            "shared memory",
            lambda: _shared_memory(shm_bytes),
            "Make /dev/shm larger; containers take --shm-size.",
            needed=uses_model_server,
        ),
        Examination(
            "open files", _open_files, f"Raise the limit before 'trendflow up': ulimit -n {_OPEN_FILES}.", needed=False
        ),
    ]


def _python() -> str:
    wanted = metadata.metadata(_DISTRIBUTION)["Requires-Python"]
    found = platform.python_version()
    if wanted and not Requirement(f"python{wanted}").specifier.contains(found):
        raise TrendFlowError("dependency_missing", f"Python is {found}, but {wanted} is needed.", kind="python")
    return f"{found} on {platform.machine()}"


def _packages() -> str:
    """Requirements of the distribution that hold without an extra."""
    wrong, count = [], 0
    for line in metadata.requires(_DISTRIBUTION) or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        count += 1
        found = _version(wanted.name)
        if found is None:
            wrong.append(f"{wanted.name} is missing")
        elif not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, not {wanted.specifier}")
    if wrong:
        raise TrendFlowError("dependency_missing", f"{_first(wrong)}.", kind="package")
    return f"{count} as required"


def _pins() -> str:
    pins = _pinned(data_path("constraints.txt").read_text())
    installed = {name: found for name in pins if (found := _version(name)) is not None}
    other = [f"{name} is {found}, tested with {pins[name]}" for name, found in installed.items() if found != pins[name]]
    if other:
        raise TrendFlowError("dependency_missing", f"{_first(other)}.", kind="package")
    return f"{len(installed)} as tested"


def _pinned(text: str) -> Mapping[str, str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version.partition(";")[0].strip() for name, _, version in pairs}


def _version(name: str) -> str | None:
    """Without the local part, which says how a wheel was built."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def _native() -> str:
    broken = []
    for name in _NATIVE:
        try:
            importlib.import_module(name)
        except ImportError:
            broken.append(name)
    if broken:
        raise TrendFlowError("dependency_missing", f"Packages do not load: {', '.join(broken)}.", kind="package")
    return f"{len(_NATIVE)} load"


def _ffmpeg() -> str:
    import av

    missing = [name for name in _DECODERS if name not in av.codecs_available]
    if missing:
        raise TrendFlowError("dependency_missing", f"Decoders are missing: {', '.join(missing)}.", kind="decoder")
    versions = ", ".join(
        f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in ("libavcodec", "libavformat")
    )
    return f"{versions}, {len(_DECODERS)} decoders"


def _gpu() -> str:
    """GPUs that a worker could use. Whether the profile's models run on them is examined with the models."""
    found = cuda_devices()
    if not found and _DRIVER.exists():
        raise TrendFlowError("device_unavailable", "This machine has an NVIDIA driver, but no GPU can be used.")
    return f"{len(found)} found" if found else "none"


def _disk(settings: Settings) -> str:
    ensure_home(settings)
    return disk_check(settings.home, settings.min_free_gb).run()


def _shared_memory(least: int) -> str:
    if not _SHARED_MEMORY.is_dir():
        raise TrendFlowError("config_invalid", "This machine has no /dev/shm.")
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if free < least:
        raise TrendFlowError(
            "storage_unavailable", f"{human_bytes(free)} of shared memory are free, {human_bytes(least)} are needed."
        )
    return f"{human_bytes(free)} free"


def _open_files() -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        raise TrendFlowError("config_invalid", f"A process may open {soft} files, {_OPEN_FILES} are recommended.")
    return "no limit" if soft == resource.RLIM_INFINITY else f"{soft} per process"


def _first(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more
