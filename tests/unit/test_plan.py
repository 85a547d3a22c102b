"""The plan of `pywg up`: values in, steps out, and all or nothing."""

import json
import signal
import time

import pytest

from pywg import plan
from pywg.config import parse
from pywg.errors import NetworkError
from pywg.plan import Dns, Facts, Place, codec

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


def lines(config, facts=Facts(), place=Place()):  # noqa: B008 - frozen values
    return [str(step) for step in plan.plan("wg0", config, facts, place)]


def test_steps_read_as_wg_quick_prints_them():
    assert lines(
        config("Address=10.0.0.1/24,fd00::1/64", "10.0.0.2/32,10.1.0.0/16,fd00:1::/64")
    ) == [
        "pywg run wg0",
        "wg setconf wg0 /dev/stdin",
        "ip -4 address add 10.0.0.1/24 dev wg0",
        "ip -6 address add fd00::1/64 dev wg0",
        "ip link set mtu 1420 up dev wg0",
        "ip -6 route add fd00:1::/64 dev wg0",
        "ip -4 route add 10.1.0.0/16 dev wg0",
    ]


def test_everything_comes_in_the_order_of_wg_quick():
    full = config(
        "Address=10.0.0.2/32\nDNS=10.0.0.1,example.com\nPreUp=one %i\nPreUp=two\nPostUp=three %i%i",
        "0.0.0.0/0,10.1.0.0/16",
    )
    assert lines(full) == [
        "pywg run wg0",
        "one wg0",
        "two",
        "wg setconf wg0 /dev/stdin",
        "ip -4 address add 10.0.0.2/32 dev wg0",
        "ip link set mtu 1420 up dev wg0",
        "write /etc/resolv.conf",
        "ip -4 route add 10.1.0.0/16 dev wg0",
        "ip -4 route add 0.0.0.0/0 dev wg0 table 51820",
        "ip -4 rule add not fwmark 51820 table 51820",
        "ip -4 rule add table main suppress_prefixlength 0",
        "sysctl -q net.ipv4.conf.all.src_valid_mark=1",
        "nft -f -",
        "three wg0wg0",
    ]


def test_the_device_is_given_the_mark_before_the_link_is_up():
    steps = plan.plan("wg0", config("", "::/0"), Facts())
    assert [step.mark for step in steps if isinstance(step, plan.Configure)] == [51820]


def rules(steps):
    return [(step.priority, step.mark) for step in steps if isinstance(step, plan.AddRule)]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ((0, 32766, 32767), [(32765, 51820), (32764, None)]),
        ((0, 32764, 32765, 32766, 32767), [(32763, 51820), (32762, None)]),
        ((0, 100, 32766), [(99, 51820), (98, None)]),
        ((0,), [(0, 51820), (0, None)]),
    ],
)
def test_rules_get_the_places_the_kernel_would_give_them(present, expected):
    steps = plan.plan("wg0", config("", "0.0.0.0/0"), Facts(rule_priorities={4: present}))
    assert rules(steps) == expected


@pytest.mark.parametrize(
    ("interface", "allowed", "used", "mark"),
    [
        ("", "10.0.0.0/8", (), None),
        ("FwMark=7", "10.0.0.0/8", (), 7),
        ("", "0.0.0.0/0", (), 51820),
        ("FwMark=off", "0.0.0.0/0", (), 51820),
        ("FwMark=7", "0.0.0.0/0", (), 7),
        ("", "0.0.0.0/0,::/0", (51820, 51821), 51822),
        ("Table=off", "0.0.0.0/0", (), None),
        ("Table=99", "0.0.0.0/0", (), None),
    ],
)
def test_the_mark_is_the_given_one_or_the_first_free_table(interface, allowed, used, mark):
    assert plan.mark_of(config(interface, allowed), Facts(used_tables=frozenset(used))) == mark


def test_a_table_of_ones_own_takes_all_routes_and_needs_no_rule():
    found = lines(config("Address=10.0.0.1/24\nTable=99", "0.0.0.0/0,10.0.0.0/24"))
    assert found[-2:] == [
        "ip -4 route add 10.0.0.0/24 dev wg0 table 99",
        "ip -4 route add 0.0.0.0/0 dev wg0 table 99",
    ]


def test_table_off_adds_no_route():
    assert "route" not in str(lines(config("Table=off", "0.0.0.0/0,10.0.0.0/8")))


def test_an_address_does_not_cover_a_default_route():
    assert "ip -4 route add 0.0.0.0/0 dev wg0 table 51820" in lines(
        config("Address=10.0.0.1/0", "0.0.0.0/0")
    )


def test_what_this_host_lacks_becomes_a_note():
    facts = Facts(ipv6=False, firewall=None, valid_mark=True, dns=Dns("none", "no resolvconf"))
    steps = plan.plan(
        "wg0", config("Address=10.0.0.1/24,fd00::1/64\nDNS=10.0.0.1", "0.0.0.0/0,::/0"), facts
    )
    assert [str(step) for step in steps if isinstance(step, plan.Note)] == [
        "IPv6 is disabled here: no address fd00::1/64",
        "DNS is not set: no resolvconf",
        "neither nft nor iptables is here: no IPv4 guard for wg0",
        "IPv6 is disabled here: no route ::/0",
    ]
    assert not any(isinstance(step, (plan.SetValidMark, plan.SetFirewall)) for step in steps)


def test_search_domains_alone_set_nothing():
    assert not any("resolv" in line for line in lines(config("DNS=example.com")))


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (Place(netns="in"), "ip link set wg0 netns in"),
        (Place(socket_netns="out"), "ip -n out link set wg0 netns $$"),
        (Place(netns="in", socket_netns="out"), "ip -n out link set wg0 netns in"),
        (Place(netns="in", socket_netns="in"), None),
        (Place(), None),
    ],
)
def test_an_interface_is_moved_away_from_its_sockets(place, line):
    moves = [found for found in lines(config(), place=place) if "netns" in found]
    assert moves == ([line] if line else [])


def test_the_kernel_can_host_it():
    assert lines(config(), place=Place("kernel"))[0] == "ip link add wg0 type wireguard"


def test_every_step_survives_being_written_down():
    full = config(
        "Address=10.0.0.2/32,fd00::1/64\nDNS=10.0.0.1,a.example\nPreUp=x", "0.0.0.0/0,::/0"
    )
    for step in plan.plan("wg0", full, Facts(), Place(netns="in")):
        for kind in (step, step.undo()):
            if kind is not None:
                written = json.dumps(codec.to_json(kind))
                assert codec.from_json(json.loads(written)) == kind


def test_what_is_no_step_is_a_value_error():
    for data in ({}, {"step": "Explode", "name": "wg0"}, {"step": "AddRule", "name": "wg0"}):
        with pytest.raises(ValueError, match="no such step"):
            codec.from_json(data)


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


def test_every_step_of_a_plan_knows_its_undo():
    steps = plan.plan("wg0", config("Address=10.0.0.1/24", "10.1.0.0/16"), Facts())
    assert [str(step.undo()) for step in steps] == [
        "ip link delete dev wg0",
        "None",
        "ip -4 address delete 10.0.0.1/24 dev wg0",
        "ip link set down dev wg0",
        "ip -4 route delete 10.1.0.0/16 dev wg0",
    ]


STEPS = [
    step
    for step in plan.plan("wg0", config("Address=10.0.0.1/24", "10.1.0.0/16"), Facts())
    if not isinstance(step, plan.Configure)
]


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
    undone = [str(step.undo()) for step in reversed(STEPS[:index]) if step.undo()]
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
    began = time.process_time()
    assert len(plan.routes(parsed)) == 8000
    assert time.process_time() - began < 3
