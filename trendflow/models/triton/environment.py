"""The server's own Python environment: a Triton that needs neither containers nor root.

The wheel `nvidia-pytriton` carries a complete `tritonserver` with the Python backend. The wheel wants older libraries
than this project and the server wants its own numpy, hence a virtual environment apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError, unwritable
from trendflow.contracts.package_data import data_path

_INSTALL_TIMEOUT_S = 900.0
_ASK_TIMEOUT_S = 60.0
_INHERITED = ("HOME", "LANG", "LC_ALL", "OMP_NUM_THREADS", "TMPDIR", "TZ")
_MARK = "trendflow-requirements.sha256"
_ASK = """
import json, sys, sysconfig
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "packages": sysconfig.get_path("platlib"),
    "libraries": sysconfig.get_config_var("LIBDIR") or "",
}))
"""


@dataclass(frozen=True)
class ServerEnvironment:
    """An environment with an installed server. `version` is its interpreter's, `libraries` where libpython lies."""

    root: Path
    version: str
    packages: Path
    libraries: str

    @property
    def server(self) -> Path:
        return self._distribution / "bin" / "tritonserver"

    @property
    def _distribution(self) -> Path:
        return self.packages / "pytriton" / "tritonserver"

    def variables(self) -> dict[str, str]:
        """Environment variables of the server process.

        The backend's stub embeds the first `python3` of PATH. What configures the interpreter of the calling process
        must not reach that one, and its credentials are none of a model server's business.
        """
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        devices = {name: value for name, value in os.environ.items() if name.startswith(("CUDA_", "NVIDIA_"))}
        return {
            **inherited,
            **devices,
            "PATH": os.pathsep.join([str(self.root / "bin"), os.environ.get("PATH", os.defpath)]),
            "VIRTUAL_ENV": str(self.root),
            "LD_LIBRARY_PATH": os.pathsep.join(
                filter(None, [str(self.packages / "nvidia_pytriton.libs"), self.libraries])
            ),
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def install_backends(self, target: Path) -> None:
        """Copy the Python backend to `target`, with the stub for this interpreter where the backend looks for it.

        Raises `dependency_missing` when the wheel has none for this Python version.
        """
        stub = self._distribution / "python_backend_stubs" / self.version / "triton_python_backend_stub"
        if not stub.is_file():
            raise TrendFlowError(
                "dependency_missing",
                f"The installed Triton has no Python backend for Python {self.version}.",
                kind="python",
                version=self.version,
            )
        try:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(self._distribution / "backends" / "python", target / "python")
            shutil.copy2(stub, target / "python" / stub.name)
        except OSError as exc:
            raise unwritable(exc, "The folder of the Triton server") from exc


def requirements() -> Path:
    """The pinned packages of the environment. Raises `dependency_missing` when the installation lacks the list."""
    return data_path("requirements-triton.txt")


def open_environment(root: Path) -> ServerEnvironment:
    """An environment that exists already. Raises `dependency_missing` when it holds no server."""
    python = root / "bin" / "python3"
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", _ASK], check=True, capture_output=True, timeout=_ASK_TIMEOUT_S, text=True
        )
        facts = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise TrendFlowError(
            "dependency_missing",
            "The Triton environment has no Python that runs; TRENDFLOW_TRITON_ENV must name a virtual environment.",
            kind="triton_environment",
            type=type(exc).__name__,
        ) from exc
    found = ServerEnvironment(root, facts["version"], Path(facts["packages"]), facts["libraries"])
    if not found.server.is_file():
        raise TrendFlowError(
            "dependency_missing",
            "The Triton environment holds no server; install requirements-triton.txt there with --no-deps.",
            kind="triton_environment",
        )
    return found


def ensure_environment(root: Path) -> ServerEnvironment:
    """The environment at `root`, made with the running interpreter and the pinned packages when it is not there yet.

    The packages come from the configured package index. Raises `dependency_missing` when they cannot be installed.
    """
    pinned = hashlib.sha256(requirements().read_bytes() + sys.version.encode()).hexdigest()
    mark = root / _MARK
    try:
        if not mark.is_file() or mark.read_bytes() != pinned.encode():
            _create(root)
            mark.write_bytes(pinned.encode())
    except OSError as exc:
        raise unwritable(exc, "The folder of the Triton environment") from exc
    return open_environment(root)


def _create(root: Path) -> None:
    """A half-made environment has no mark and is made anew the next time."""
    shutil.rmtree(root, ignore_errors=True)
    pip = [str(root / "bin" / "python3"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = [
        [sys.executable, "-m", "venv", str(root)],
        [*pip, "--no-deps", "--requirement", str(requirements())],
    ]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_TIMEOUT_S, text=True)
        except (OSError, subprocess.SubprocessError) as exc:
            said = getattr(exc, "stderr", None) or getattr(exc, "stdout", None) or ""
            raise TrendFlowError(
                "dependency_missing",
                "The packages of the Triton server could not be installed.",
                kind="triton_environment",
                type=type(exc).__name__,
                output=str(said).strip().replace(str(root), "<environment>")[-500:],
            ) from exc
