"""EfficientNet-Lite0 as every engine builds it: what the checkpoint does not say of its architecture.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019), table 1, in the Lite
variant: no squeeze-and-excitation, ReLU6 instead of swish, stem and head of fixed width.
"""

from __future__ import annotations

IMAGE_SIZE = 224
FEATURES = 1280
BATCH_NORM_EPSILON = 1e-3

# (repeats, stride of the first repeat, expansion); kernel sizes and widths are those of the weights
BLOCKS = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Side of the result and pixels before and behind a picture of side `size`, by TensorFlow's rule SAME.

    It pads the odd pixel behind the image, not before it as torch's symmetric padding would.
    """
    out = -(-size // stride)
    padding = max((out - 1) * stride + kernel - size, 0)
    return out, padding // 2, padding - padding // 2
