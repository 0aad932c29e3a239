from __future__ import annotations

import numpy as np
import pytest

from trendflow.media.tonemap import Transfer, compress_nits, hlg_to_scene, nits_to_pq, pq_to_nits, to_sdr


def code(signal: float) -> int:
    return round(signal * 65535)


def pixel(red: float, green: float, blue: float, transfer: Transfer, wide: bool = True) -> list[int]:
    planes = np.array([code(red), code(green), code(blue)], dtype=np.uint16).reshape(3, 1, 1)
    return [int(v) for v in to_sdr(planes, transfer, wide).ravel()]


@pytest.mark.parametrize(
    ("nits", "signal"),
    # BT.2408 gives 58 % for the 203-nit reference white; ST 2084 gives about 0.508 and 0.7518 for 100 and 1000 nits.
    [(0.0, 0.0), (100.0, 0.5081), (203.0, 0.5807), (1000.0, 0.7518), (10000.0, 1.0)],
)
def test_the_pq_curve_has_its_published_values(nits: float, signal: float) -> None:
    assert float(nits_to_pq(np.array(nits))) == pytest.approx(signal, abs=2e-4)
    assert float(pq_to_nits(np.array(signal))) == pytest.approx(nits, rel=5e-3, abs=1e-3)


def test_the_hlg_curve_has_its_published_values() -> None:
    # BT.2100: the two branches meet at signal 0.5 with scene light 1/12; signal 1 is scene light 1.
    assert hlg_to_scene(np.array([0.0, 0.5, 1.0])) == pytest.approx([0.0, 1 / 12, 1.0], abs=1e-6)


def test_compression_is_the_identity_in_the_dark_and_ends_at_reference_white() -> None:
    nits = np.geomspace(0.01, 10000, 400)
    found = compress_nits(nits)
    assert found[nits < 80] == pytest.approx(nits[nits < 80])
    assert np.all(np.diff(found) >= -1e-9)
    assert np.all(found <= 203.0 * (1 + 1e-9))
    assert found[nits >= 1000] == pytest.approx(203.0)


def test_greys_stay_grey_and_follow_the_curve() -> None:
    for nits in (0.5, 5.0, 50.0, 150.0, 600.0, 4000.0):
        signal = float(nits_to_pq(np.array(nits)))
        expected = 255 * (float(compress_nits(np.array(nits))) / 203.0) ** (1 / 2.4)
        found = pixel(signal, signal, signal, Transfer.PQ)
        assert max(found) - min(found) <= 1
        assert found[1] == pytest.approx(expected, abs=1.0)


def test_black_is_black_and_peak_is_white() -> None:
    for transfer in Transfer:
        assert pixel(0, 0, 0, transfer) == [0, 0, 0]
        assert pixel(1, 1, 1, transfer) == [255, 255, 255]


def test_hlg_reference_white_is_near_sdr_white() -> None:
    found = pixel(0.75, 0.75, 0.75, Transfer.HLG)  # BT.2408: 75 % HLG is 203 nits on a 1000-nit display
    expected = 255 * (float(compress_nits(np.array(203.0))) / 203.0) ** (1 / 2.4)
    assert found[1] == pytest.approx(expected, abs=1.5)


def test_wide_gamut_is_converted() -> None:
    inside = np.array([0.6, 0.5, 0.4])  # BT.709 display light, well inside BT.2020
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087
    signal = (to_2020 @ inside) ** (1 / 2.4)
    assert pixel(*signal, Transfer.SDR) == pytest.approx(255 * inside ** (1 / 2.4), abs=1.0)


def test_a_saturated_bt2020_primary_clips_without_wrapping() -> None:
    red, green, blue = pixel(1.0, 0.0, 0.0, Transfer.SDR)
    assert (red, green, blue) == (255, 0, 0)
