"""Torch checkpoints as plain arrays, read where a hostile one reaches nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from trendflow.contracts.errors import TrendFlowError

_READER_TIMEOUT_S = 600.0


def read_checkpoint(data: bytes) -> dict[str, np.ndarray]:
    """Tensors of a torch checkpoint, read in an isolated process.

    Names are those of the checkpoint. All but TorchScript archives need torch (see `recipes`). Raises
    `model_load_failed` when the checkpoint holds anything but tensors.
    """
    with tempfile.TemporaryDirectory(prefix="trendflow-checkpoint-") as folder:
        source, target = Path(folder) / "checkpoint.pth", Path(folder) / "arrays.npz"
        source.write_bytes(data)
        script = Path(__file__).with_name("read_checkpoint.py")
        # PATH-like variables keep the interpreter working; tokens and proxies of the parent stay behind.
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        try:
            subprocess.run(
                [sys.executable, "-I", str(script), str(source), str(target)],
                env=kept,
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=_READER_TIMEOUT_S,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            raise TrendFlowError(
                "model_load_failed", "The checkpoint could not be read as plain tensors.", type=type(exc).__name__
            ) from exc
        with np.load(target, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
