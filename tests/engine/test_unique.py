"""Ids that come twice are found, wherever they were."""

import random

from bezoar.engine.unique import Seen


def test_it_finds_what_a_set_finds() -> None:
    chance = random.Random(0)
    seen, plain = Seen(), set[str]()
    for _ in range(60):
        ids = [str(chance.randrange(5000)) for _ in range(chance.randrange(40))]
        expected = []
        for name in ids:
            if name in plain:
                expected.append(name)
            plain.add(name)
        assert seen.add(ids) == expected


def test_runs_stay_few() -> None:
    seen = Seen()
    for first in range(0, 4096, 16):
        assert seen.add([str(i) for i in range(first, first + 16)]) == []
    assert len(seen._runs) < 10
    assert seen.add(["17", "5000"]) == ["17"]
