"""The kernel's own selftest of its WireGuard driver, as scenarios of ours: all of its blocks that a
daemon can have, again and again.

    scripts/selftest [--rounds N] [--workers K]

The blocks are those of tools/testing/selftests/wireguard/netns.sh in Linux, in its order; BLOCKS
says which tests are each. NOT_OURS has what pywg does otherwise, or what only a driver has. Needs
root. One line a round; the exit code is 1 if any of them was red.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial

from tools.green import Tally, run_netns

# Block -> tests in tests/netns, by file.
BLOCKS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "ping, TCP and UDP by both families, over either family": {
        "test_tunnel": ["test_both_families_pass_inside_over_either_family_outside"],
        "test_selftest": ["test_tcp_connections_side_by_side_all_end_well"],
    },
    "counters and the time of the handshake": {
        "test_tunnel": ["test_counters_count_whole_datagrams"],
    },
    "the same at a large MTU": {
        "test_selftest": ["test_everything_passes_at_a_large_mtu_and_at_the_usual_one_again"],
    },
    "padding and the MTU": {"test_tunnel": ["test_padding_never_goes_beyond_the_mtu"]},
    "roaming by both families": {
        "test_roaming": [
            "test_a_transfer_goes_on_when_the_sender_changes_its_address",
            "test_a_transfer_goes_on_when_a_peer_changes_its_port",
            "test_a_peer_may_move_from_one_family_to_the_other",
        ],
    },
    "who may speak for an address": {
        "test_allowed_ips": ["test_the_longest_prefix_of_all_peers_decides_who_may_speak"],
    },
    "a new private key": {"test_tunnel": ["test_a_new_private_key_needs_a_new_handshake"]},
    "a tunnel in a tunnel": {
        "test_policy_routing": ["test_a_tunnel_of_another_interface_works_within_the_tunnel"],
    },
    "behind a router that translates and forgets": {
        "test_nat": ["test_keepalives_keep_a_way_in_open_through_a_router_that_soon_forgets"],
    },
    "bound sockets, and a mark that changes the way": {
        "test_selftest": [
            "test_a_socket_that_is_bound_to_the_interface_sends_through_it_also_when_marked"
        ],
    },
    "an onion, and one that bites its tail": {
        "test_policy_routing": [
            "test_a_tunnel_within_the_tunnel_works_by_another_peer_of_the_same_interface",
            "test_an_endpoint_within_its_own_allowed_ips_does_not_run_hot",
        ],
    },
    "everything through the tunnel, by mark and rule": {
        "test_policy_routing": [
            "test_with_a_mark_all_goes_through_the_tunnel_but_the_daemon_itself"
        ],
    },
    "an ICMP error finds its way back through a translation": {
        "test_nat": [
            "test_a_host_whose_packet_was_translated_into_the_tunnel_learns_that_nobody_is_there"
        ],
    },
    "source addresses stick, but not too much": {
        "test_selftest": ["test_a_session_leaves_an_address_that_is_taken_away"],
        "test_policy_routing": [
            "test_answers_leave_from_the_address_that_was_written_to",
            "test_a_better_route_takes_the_stream_over_and_its_end_gives_it_back",
        ],
    },
    "configurations that need several answers": {
        "test_selftest": [
            "test_a_peer_with_more_prefixes_than_any_answer_of_netlink_holds",
            "test_many_peers_with_many_prefixes_are_shown_whole",
        ],
    },
    "keys and prefixes as wg sets and shows them": {
        "test_selftest": [
            "test_an_interface_that_is_not_there_is_an_error",
            "test_keys_are_set_and_taken_away_and_our_own_is_no_peer",
            "test_a_private_key_that_is_not_clamped_is_shown_as_what_it_is",
            "test_prefixes_that_hold_others_come_and_go",
        ],
    },
    "keys of small order": {
        "test_selftest": ["test_peers_with_keys_of_small_order_are_never_written_to"],
    },
    "an interface that goes to another namespace": {
        "test_tunnel": ["test_an_interface_moved_to_another_namespace_keeps_working"],
    },
}
# Block, or part of one -> why it is not here.
NOT_OURS = {
    "statistics of the link": "a TUN counts inner bytes; `wg show transfer` counts as the driver",
    "padding that follows the MTU of a route": "a TUN does not know the route of a packet",
    "a loop over two interfaces is bounded": "a packet from a TUN has no mark to be known again by",
    "references between namespaces in a circle": "a daemon holds the namespace that it runs in",
    "objects that are created and destroyed": "the driver's log; a daemon's memory is test_soak.py",
}


def tests() -> list[str]:
    return [
        f"tests/netns/{file}.py::{name}"
        for files in BLOCKS.values()
        for file, names in files.items()
        for name in names
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="selftest", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="times all of it (1)")
    parser.add_argument("--workers", type=int, default=2, metavar="K", help="tests at once (2)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    tally = Tally()
    with contextlib.closing(tally):
        for number in range(options.rounds):
            what = f"selftest {number + 1}/{options.rounds}"
            tally.run(what, partial(run_netns, tests(), options.workers))
    print(f"{tally.red} of {options.rounds} rounds failed")
    return 1 if tally.red else 0


if __name__ == "__main__":
    sys.exit(main())
