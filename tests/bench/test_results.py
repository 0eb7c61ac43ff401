"""What the two ends wrote down, held against each other."""

from __future__ import annotations

from array import array

from bench import results
from bench.load.record import CallerCall, CallerRecord, Cut, Lag, ModelCall, ModelRecord, Truncation
from bench.processes import Usage
from bench.results import ProcessCost


def records(model: ModelCall, caller: CallerCall) -> tuple[ModelRecord, CallerRecord]:
    forward = array("I", [100, 60_000]).tobytes()
    window = (0, 60_000_000)
    return ModelRecord([model], forward, Lag(), *window), CallerRecord([caller], Lag())


def test_every_fate_of_a_frame_is_counted() -> None:
    model = ModelCall(3, frames=95, lost=[7], repeated=2, reordered=1, strangers=4)
    found = results.frames(*records(model, CallerCall(3, "CA3", frames=100)))
    assert (found.sent, found.lost, found.lost_at_hang_up) == (100, 1, 4)
    assert (found.repeated, found.out_of_order, found.strangers) == (2, 1, 4)
    assert found.late == 1


def test_a_call_that_never_came_through_has_lost_all_its_frames() -> None:
    found = results.frames(*records(ModelCall(1), CallerCall(2, "CA2", frames=50)))
    assert found.lost + found.lost_at_hang_up == 50


def test_barge_ins_are_timed_from_the_models_word_to_twilios_clear() -> None:
    model = ModelCall(
        0,
        interrupts_ns=[1_000_000, 50_000_000, 70_000_000],
        truncations=[Truncation("i", 9, False)],
    )
    caller = CallerCall(
        0, "CA0", cuts=[Cut(1, 0, clear_ns=53_000_000), Cut(1, 0), Cut(2, 0, clear_ns=99_000_000)]
    )
    found = results.barge_in(*records(model, caller))
    assert (found.count, found.cleared, found.processing_ms.most) == (3, 2, 3.0)
    assert (found.truncations, found.refused) == (1, 1)


def test_cost_is_per_call_and_minute() -> None:
    idle, begin, end = (
        Usage(cpu, 0.0, 0, memory, 1) for cpu, memory in ((0, 10_000), (1, 0), (4, 10_000 + 51_200))
    )
    cost = results.process_cost(idle, begin, end, calls=10, seconds=30)
    assert (cost.cpu_s_per_call_minute, cost.cpu_share, cost.kb_per_call) == (0.6, 0.1, 5.0)


def test_a_generator_that_did_not_keep_pace_says_so() -> None:
    in_time, late = (Lag(array("I", [us] * 100).tobytes()) for us in (300, 9_000))
    easy, busy = (ProcessCost(0.1, share, 0.0, 1.0, 1.0) for share in (0.3, 0.95))
    quiet = results.generator(
        ModelRecord([], b"", in_time), CallerRecord([], in_time), easy, easy, 0.4
    )
    assert not quiet.bottleneck
    loud = results.generator(
        ModelRecord([], b"", late), CallerRecord([], in_time), busy, easy, 0.99
    )
    assert loud.bottleneck
    assert loud.why == [
        "the model's end ran 9.0 ms late in one turn of a hundred, "
        "the machine being short of cores",
        "Twilio's end used 95% of a core",
    ]
