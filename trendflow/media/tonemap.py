"""HDR and wide gamut to 8-bit SDR BT.709, on arrays.

Light is taken to display nits (PQ: SMPTE ST 2084; HLG: BT.2100 with the system gamma of a 1000-nit display),
compressed by the EETF of Report ITU-R BT.2390 from a 1000-nit mastering display to the 203-nit reference white of
BT.2408, converted from BT.2020 to BT.709 primaries and encoded with the inverse of BT.1886 (gamma 2.4).
"""

from __future__ import annotations

from enum import Enum
from functools import cache

import numpy as np

SOURCE_PEAK_NITS = 1000.0
TARGET_WHITE_NITS = 203.0
_PQ_PEAK_NITS = 10000.0
_GAMMA = 2.4
_HLG_SYSTEM_GAMMA = 1.2
# BT.2087: linear BT.2020 RGB to linear BT.709 RGB.
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
_TABLE = 8192  # entries of tables indexed by a square root, which spends them on the dark end


class Transfer(Enum):
    """Transfer function of the source. SDR covers every gamma-like one."""

    SDR = "sdr"
    PQ = "pq"
    HLG = "hlg"


_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_to_nits(signal: np.ndarray) -> np.ndarray:
    """ST 2084 EOTF: signal in [0, 1] to cd/m²."""
    power = np.asarray(signal, dtype=np.float64) ** (1 / _M2)
    return _PQ_PEAK_NITS * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def nits_to_pq(nits: np.ndarray) -> np.ndarray:
    """ST 2084 inverse EOTF: cd/m² to signal in [0, 1]."""
    power = (np.asarray(nits, dtype=np.float64) / _PQ_PEAK_NITS) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_to_scene(signal: np.ndarray) -> np.ndarray:
    """BT.2100 HLG inverse OETF: signal in [0, 1] to relative scene light in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.asarray(signal, dtype=np.float64)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def compress_nits(nits: np.ndarray) -> np.ndarray:
    """BT.2390 EETF (black level 0) from 1000 nits to 203 nits: identity below the knee, then a Hermite spline."""
    peak = float(nits_to_pq(np.array(SOURCE_PEAK_NITS)))
    top = float(nits_to_pq(np.array(TARGET_WHITE_NITS))) / peak
    knee = 1.5 * top - 0.5
    e1 = np.minimum(nits_to_pq(nits) / peak, 1.0)
    t = np.maximum(e1 - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * top
    return np.where(e1 < knee, nits, pq_to_nits(spline * peak))


@cache
def _light_table(transfer: Transfer) -> np.ndarray:
    """float32 light of every 16-bit code: PQ in units of 10 000 nits, HLG scene light, SDR relative display light."""
    signal = np.arange(65536) / 65535
    if transfer is Transfer.PQ:
        light = pq_to_nits(signal) / _PQ_PEAK_NITS
    elif transfer is Transfer.HLG:
        light = hlg_to_scene(signal)
    else:
        light = signal**_GAMMA
    return light.astype(np.float32)


@cache
def _gain_table() -> np.ndarray:
    """float32 factor to SDR light (1 = 203 nits) over the square root of light in units of 10 000 nits."""
    nits = (np.arange(_TABLE) / (_TABLE - 1)) ** 2 * _PQ_PEAK_NITS
    nits[0] = nits[1]
    return (compress_nits(nits) / nits * (_PQ_PEAK_NITS / TARGET_WHITE_NITS)).astype(np.float32)


@cache
def _encode_table() -> np.ndarray:
    """uint8 BT.1886 signal over the square root of relative display light."""
    return np.round(255 * (np.arange(_TABLE) / (_TABLE - 1)) ** (2 / _GAMMA)).astype(np.uint8)


def to_sdr(planes: np.ndarray, transfer: Transfer, wide_gamut: bool) -> np.ndarray:
    """uint16 `[3, H, W]` full-range RGB codes to uint8 `[3, H, W]` SDR BT.709."""
    light = _light_table(transfer)[planes]
    if transfer is Transfer.HLG:
        luma = np.tensordot(_BT2020_LUMA, light, axes=1)
        light *= luma ** (_HLG_SYSTEM_GAMMA - 1) * np.float32(SOURCE_PEAK_NITS / _PQ_PEAK_NITS)
    if transfer is not Transfer.SDR:
        # One gain per pixel, taken from its strongest channel, keeps the hue and leaves no channel above white.
        strongest = np.sqrt(light.max(axis=0)) * np.float32(_TABLE - 1)
        light *= _gain_table()[np.minimum(strongest, _TABLE - 1).astype(np.int32)]
    if wide_gamut:
        light = np.tensordot(_BT2020_TO_BT709, light, axes=1)
    return _encode_table()[(np.sqrt(np.clip(light, 0, 1)) * np.float32(_TABLE - 1) + np.float32(0.5)).astype(np.int32)]
