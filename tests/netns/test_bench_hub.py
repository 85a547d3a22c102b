"""What scripts/bench_hub and scripts/bench_threads send through a daemon comes out, in each way."""

from __future__ import annotations

import pytest

from tools.bench.hub import place
from tools.bench.tunnel.contestants import SUBJECT, Contestant
from tools.bench.tunnel.underlays import UNDERLAYS
from tools.lab import programs

PACKETS = 880


@pytest.fixture
def contestant() -> Contestant:
    return Contestant(SUBJECT, programs.subject())


@pytest.mark.parametrize("peers", [1, 5])
def test_all_that_is_sent_through_a_hub_comes_out(contestant: Contestant, peers: int) -> None:
    with place.hub(contestant, peers, UNDERLAYS["trains"]) as ends:
        for way in place.WINDOWS:
            trial = ends.trial(way, (64, 300, 1372), PACKETS)
            assert (trial.sent, trial.through) == (PACKETS, PACKETS), way
            assert trial.hub_cpu > 0
            assert trial.seconds > 0


@pytest.mark.pywgd_only
def test_all_that_is_sent_in_trains_comes_out(contestant: Contestant) -> None:
    with place.hub(contestant, 1, UNDERLAYS["trains"]) as ends:
        for way in ("in", "out"):
            trial = ends.trial(way, (1372,), PACKETS, flows=8, train=44)
            assert (trial.sent, trial.through) == (PACKETS, PACKETS), way


def test_a_hub_without_its_peers_is_a_failure_and_not_a_figure(contestant: Contestant) -> None:
    with place.hub(contestant, 2, UNDERLAYS["trains"]) as ends:
        ends.process.kill()
        with pytest.raises(place.Failed, match="have ended"):
            ends.trial("in", (64,), PACKETS)
