"""Calls at random: networks, faults, items, barge-ins and endings, drawn from a source of randomness."""

from __future__ import annotations

import random
from dataclasses import dataclass

from gateway.playout import Part
from tests.gateway.playout.reference_carrier import Call, Faults, Network, Outcome, Way


@dataclass(frozen=True, slots=True)
class Kind:
    """What may happen in a random call."""

    jitter: bool = True
    lost: bool = True
    late: bool = True
    clock_faults: bool = True
    stalls: bool = True
    slow_model: bool = True


EVERYTHING = Kind()


def way(rng: random.Random, kind: Kind) -> Way:
    delay_us = rng.choice([0, 1, 10, 40, 150, 250]) * 1000
    jitter_us = rng.choice([0, 5, 30, 100]) * 1000 if kind.jitter else 0
    stalls = []
    if kind.stalls and rng.random() < 0.3:
        begin_us = rng.randint(0, 6_000_000)
        stalls.append((begin_us, begin_us + rng.randint(50_000, 1_500_000)))
    return Way(delay_us, min(jitter_us, delay_us), tuple(stalls))


def faults(rng: random.Random, kind: Kind) -> Faults:
    omitted: list[tuple[int, int]] = []
    shifts: list[tuple[int, int]] = []
    if kind.clock_faults and rng.random() < 0.4:
        begin_us = rng.randint(0, 6_000_000)
        omitted.append((begin_us, begin_us + rng.randint(20_000, 3_000_000)))
    if kind.clock_faults and rng.random() < 0.4:
        shifts.append((rng.randint(0, 6_000_000), rng.randint(-8_000, 8_000)))
    return Faults(
        lost=rng.choice([0.0, 0.0, 0.1, 0.5, 1.0]) if kind.lost else 0.0,
        every_third_lost=kind.lost and rng.random() < 0.1,
        late=rng.choice([0.0, 0.0, 0.1, 0.4]) if kind.late else 0.0,
        repeated=rng.choice([0.0, 0.2]),
        no_media=kind.clock_faults and rng.random() < 0.05,
        omitted=tuple(omitted),
        shifts=tuple(shifts),
        fence_lost=kind.lost and rng.random() < 0.1,
    )


def random_network(rng: random.Random, kind: Kind = EVERYTHING) -> Network:
    return Network(
        down=way(rng, kind),
        up=way(rng, kind),
        faults=faults(rng, kind),
        tick=rng.random() < 0.3,
        split_writes=rng.random() < 0.5,
        drift_ppm=rng.choice([0, 0, -100, 100]),
        phase_us=rng.randint(0, 200_000),
    )


def random_call(rng: random.Random, noise: int, kind: Kind = EVERYTHING) -> Outcome:
    """Up to three answers of up to three items, each perhaps cut; then an ending.

    Args:
        rng: Draws the traffic and what the network is like.
        noise: Seed of what the network does.
        kind: What may happen.
    """
    call = Call(random_network(rng, kind), seed=noise)
    at_ms, interrupts = rng.randint(0, 300), 0
    for answer in range(rng.randint(1, 3)):
        speed = rng.choice([0.7, 1.0, 2.0, 4.0, 100.0] if kind.slow_model else [4.0])
        chunk_ms = rng.choice([20, 60, 100, 200, 500])
        length_ms, generated_ms, parts = 0, 0.0, []
        for item in range(rng.choice([1, 1, 2, 3])):
            parts.append(Part(f"item{answer}{item}"))
        turns = rng.choice([1, 1, 2])  # twice: A, B, A, B
        for turn in range(turns):
            for part in parts:
                size_ms = rng.randint(20, 2500)
                call.say(
                    part,
                    at_ms + int(generated_ms),
                    size_ms,
                    delta_ms=rng.choice([20, 100, 250, 500]),
                    speed=speed,
                    chunk_ms=chunk_ms,
                    end=turn == turns - 1 and rng.random() < 0.9,
                )
                length_ms += size_ms
                generated_ms += size_ms / speed
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            interrupts += 1
            call.interrupt(at_ms + rng.randint(0, length_ms + 500), interrupts)
        at_ms += rng.randint(200, length_ms + 1500)
    ending = rng.choice(["stop", "drop", "drop late", "none"])
    ends_ms = rng.randint(300, at_ms + 1500)
    if ending == "stop":
        call.hang_up(ends_ms)
    elif ending == "drop":
        call.drop(ends_ms)
    elif ending == "drop late":
        call.drop(ends_ms, plays_on_ms=rng.randint(0, 3000))
    return call.run(at_ms + 12_000)
