from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trendflow.media.selection import Chosen, FrameSelector


def run(expected: list[int | None], wanted: list[int], decoded: list[int | None]) -> list[Chosen[int]]:
    """Push frames whose payload is their number; returns everything that was chosen."""
    selector: FrameSelector[int] = FrameSelector(expected, wanted)
    found: list[Chosen[int]] = []
    for number, tick in enumerate(decoded):
        found += selector.push(number, tick, number)
    return found + selector.finish()


ticks = st.lists(st.integers(1, 9), min_size=1, max_size=40).map(
    lambda steps: [sum(steps[: k + 1]) for k in range(len(steps))]
)


@given(ticks, st.data())
def test_an_undamaged_stream_gives_exactly_the_wanted_frames(times: list[int | None], data: st.DataObject) -> None:
    wanted = sorted(data.draw(st.sets(st.integers(0, len(times) - 1))))
    assert [(c.slot, c.number) for c in run(times, wanted, times)] == list(enumerate(wanted))


@given(ticks, st.data())
def test_lost_frames_are_replaced_in_order_and_never_twice(times: list[int | None], data: st.DataObject) -> None:
    wanted = sorted(data.draw(st.sets(st.integers(0, len(times) - 1), min_size=1)))
    lost = data.draw(st.sets(st.integers(0, len(times) - 1)))
    decoded = [tick for position, tick in enumerate(times) if position not in lost]
    original = [position for position in range(len(times)) if position not in lost]
    found = run(times, wanted, decoded)
    numbers = [c.number for c in found]
    assert numbers == sorted(set(numbers))  # display order, no frame twice
    assert len({c.slot for c in found}) == len(found)
    served = {c.slot: original[c.number] for c in found}
    for slot, position in enumerate(wanted):
        if position not in lost:
            assert served[slot] == position
    spare = [position for position in original if position not in wanted]
    if len([p for p in wanted if p in lost]) == 1 and spare:
        (slot,) = [k for k, p in enumerate(wanted) if p in lost]
        position = wanted[slot]
        before = max((p for p in spare if p < position and not any(p < w < position for w in wanted)), default=None)
        after = min((p for p in spare if p > position), default=None)
        options = [p for p in (before, after) if p is not None]
        if options:
            assert served[slot] in options
        if before is not None and after is not None and position - before < after - position:
            assert served[slot] == before
        if before is not None and after is not None and after - position < position - before:
            assert served[slot] == after


def test_a_lost_frame_takes_the_nearer_neighbour() -> None:
    times: list[int | None] = [0, 1, 2, 3, 4, 5, 6, 7, 8]
    decoded: list[int | None] = [0, 1, 2, 4, 5, 6, 7, 8]  # position 3 is lost
    assert [c.number for c in run(times, [0, 3, 8], decoded)] == [0, 2, 7]  # the earlier of two equally near ones


def test_without_an_unused_frame_the_slot_stays_empty() -> None:
    times: list[int | None] = [0, 1, 2, 3]
    assert [c.slot for c in run(times, [0, 1, 2, 3], [0, 1, 3])] == [0, 1, 3]


def test_frames_without_or_with_unknown_times_are_usable() -> None:
    times: list[int | None] = [0, None, 20, 30]
    assert [(c.slot, c.number) for c in run(times, [1, 3], [0, None, 20, 30])] == [(0, 1), (1, 3)]
    strange: list[int | None] = [0, 11, 12, 30]  # other times than the packets announced
    assert [(c.slot, c.number) for c in run([0, 10, 20, 30], [0, 2, 3], strange)] == [(0, 0), (1, 2), (2, 3)]


def test_equal_times_are_taken_one_after_the_other() -> None:
    times: list[int | None] = [0, 10, 10, 20]
    assert [c.number for c in run(times, [0, 1, 2, 3], times)] == [0, 1, 2, 3]
