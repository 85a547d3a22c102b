"""The plan of `pywg up`: values in, steps out, and all or nothing."""

import signal
import time

import pytest

from pywg import plan
from pywg.config import parse
from pywg.errors import ConfigError, NetworkError
from pywg.plan import Facts

KEYS = [
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
]


def config(interface="", *allowed_ips):
    peers = "".join(
        f"[Peer]\nPublicKey={key}\nAllowedIPs={allowed}\n"
        for key, allowed in zip(KEYS, allowed_ips, strict=False)
    )
    return parse(f"[Interface]\n{interface}\n{peers}", "wg0.conf")


def lines(config, facts=Facts()):  # noqa: B008 - a frozen value
    return [str(step) for step in plan.plan("wg0", config, facts)]


def test_steps_read_as_wg_quick_prints_them():
    assert lines(
        config("Address=10.0.0.1/24,fd00::1/64", "10.0.0.2/32,10.1.0.0/16,fd00:1::/64")
    ) == [
        "pywg run wg0",
        "ip -4 address add 10.0.0.1/24 dev wg0",
        "ip -6 address add fd00::1/64 dev wg0",
        "ip link set mtu 1420 up dev wg0",
        "ip -6 route add fd00:1::/64 dev wg0",
        "ip -4 route add 10.1.0.0/16 dev wg0",
    ]


@pytest.mark.parametrize(
    ("interface", "facts", "mtu"),
    [
        ("", Facts(), 1420),
        ("", Facts(default_route_mtu=9000), 8920),
        ("", Facts((1500, 1400), 9000), 1320),
        ("MTU=1280", Facts((1500,), 1500), 1280),
    ],
)
def test_mtu_is_the_given_one_or_the_smallest_path_less_80(interface, facts, mtu):
    assert plan.choose_mtu(config(interface), facts) == mtu


@pytest.mark.parametrize(
    ("addresses", "allowed", "routes"),
    [
        # longest first, and a shorter one is not covered by a longer
        ("", ["10.0.0.0/8,10.1.0.0/16,10.1.1.1/32"], ["10.1.1.1/32", "10.1.0.0/16", "10.0.0.0/8"]),
        # covered by the network of an address
        ("10.0.0.1/24", ["10.0.0.7/32,10.0.0.0/24,10.0.0.0/16"], ["10.0.0.0/16"]),
        # the kernel makes no route for an IPv4 /32 ...
        ("10.0.0.1/32", ["10.0.0.1/32"], ["10.0.0.1/32"]),
        # ... but one for an IPv6 /128
        ("fd00::1/128", ["fd00::1/128,fd00::2/128"], ["fd00::2/128"]),
        # several peers, both families, no duplicates
        ("", ["10.0.0.0/8", "10.0.0.0/8,fd00::/8"], ["10.0.0.0/8", "fd00::/8"]),
        ("", [], []),
    ],
)
def test_routes(addresses, allowed, routes):
    found = plan.routes(config(f"Address={addresses}", *allowed))
    assert [str(network) for network in found] == routes


@pytest.mark.parametrize("allowed", ["0.0.0.0/0", "::/0"])
def test_a_default_route_is_refused_with_its_line_and_the_way_out(allowed):
    with pytest.raises(ConfigError, match="WG_QUICK_USERSPACE_IMPLEMENTATION=pywgd") as caught:
        plan.plan("wg0", config("", f"10.0.0.0/8, {allowed}"), Facts())
    assert caught.value.line == 5
    assert caught.value.column == 24
    assert "wg-quick up wg0" in str(caught.value)


def test_every_step_of_a_plan_knows_its_undo():
    steps = plan.plan("wg0", config("Address=10.0.0.1/24", "10.1.0.0/16"), Facts())
    assert [str(step.undo()) for step in steps] == [
        "ip link delete dev wg0",
        "ip -4 address delete 10.0.0.1/24 dev wg0",
        "ip link set down dev wg0",
        "ip -4 route delete 10.1.0.0/16 dev wg0",
    ]


STEPS = plan.plan("wg0", config("Address=10.0.0.1/24", "10.1.0.0/16"), Facts())


class Kernel:
    """Performs steps by writing them down; fails at one."""

    def __init__(self, fail_at=None, error=None):
        self.done = []
        self.fail_at = fail_at
        self.error = error or NetworkError("no")

    def perform(self, step):
        if step == self.fail_at:
            raise self.error
        self.done.append(str(step))


def test_execute_echoes_before_it_performs():
    kernel, trace = Kernel(), []

    def echo(step):
        trace.append(str(step))
        assert str(step) not in kernel.done

    plan.execute(STEPS, kernel.perform, echo)
    assert kernel.done == trace == [str(step) for step in STEPS]


@pytest.mark.parametrize("index", range(len(STEPS)))
def test_a_failing_step_undoes_the_earlier_ones_backwards(index):
    kernel = Kernel(fail_at=STEPS[index])
    with pytest.raises(NetworkError):
        plan.execute(STEPS, kernel.perform, lambda step: None)
    undone = [str(step.undo()) for step in reversed(STEPS[:index])]
    assert kernel.done == [str(step) for step in STEPS[:index]] + undone


def test_an_interrupted_step_is_undone_too():
    kernel = Kernel(fail_at=STEPS[1], error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        plan.execute(STEPS, kernel.perform, lambda step: None)
    assert kernel.done[1:] == [str(STEPS[1].undo()), str(STEPS[0].undo())]


def test_an_undo_that_fails_hides_nothing():
    done = []

    def perform(step):
        if step == STEPS[2]:
            raise NetworkError("the first")
        if step == STEPS[1].undo():
            raise NetworkError("the second")
        done.append(str(step))

    with pytest.raises(NetworkError, match="the first"):
        plan.execute(STEPS, perform, lambda step: None)
    assert done[-1] == "ip link delete dev wg0"


def test_a_trace_nobody_reads_does_not_keep_steps_from_being_undone():
    done = []

    def perform(step):
        done.append(str(step))
        if isinstance(step, plan.LinkUp):
            raise NetworkError("no")

    def echo(step):
        if isinstance(step, (plan.DeleteAddress, plan.DeleteInterface)):
            raise BrokenPipeError

    steps = plan.plan("wg0", config("Address=10.0.0.1/24"), Facts())
    with pytest.raises(NetworkError):
        plan.execute(steps, perform, echo)
    assert done[-2:] == ["ip -4 address delete 10.0.0.1/24 dev wg0", "ip link delete dev wg0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_keep_steps_from_being_undone(number):
    done = []

    def interrupt(number, frame):
        raise KeyboardInterrupt

    def perform(step):
        done.append(str(step))
        if isinstance(step, (plan.LinkUp, plan.DeleteAddress)):
            signal.raise_signal(number)

    before = signal.signal(number, interrupt)
    try:
        steps = plan.plan("wg0", config("Address=10.0.0.1/24"), Facts())
        with pytest.raises(KeyboardInterrupt):
            plan.execute(steps, perform, lambda step: None)
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert done[-1] == "ip link delete dev wg0"


def test_routes_of_thousands_of_networks_take_no_time():
    networks = (f"10.{number >> 8}.{number & 255}.0/24" for number in range(8000))
    parsed = config("Address=192.0.2.1/24", ",".join(networks))
    began = time.monotonic()
    assert len(plan.routes(parsed)) == 8000
    assert time.monotonic() - began < 3
