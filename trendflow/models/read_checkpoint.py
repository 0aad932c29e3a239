"""Child process of `build`: turns a torch checkpoint into plain arrays.

A torch checkpoint is a pickle. `weights_only=True` admits tensors and nothing that runs code, and this process, which
imports nothing of the program and inherits no environment, is all an exploit of the reader would reach.

Usage: python -I read_checkpoint.py <checkpoint.pth> <arrays.npz>
"""

from __future__ import annotations

import sys


def main(source: str, target: str) -> None:
    import numpy as np
    import torch

    tensors = torch.load(source, map_location="cpu", weights_only=True)
    np.savez(target, **{name: tensor.numpy() for name, tensor in tensors.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
