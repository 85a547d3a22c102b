"""What the tests and the benchmark share: namespaces, daemons, traffic and a small WireGuard
initiator.

namespaces  a network namespace, and a cable between two of them
programs    the daemon under test and its peers: where they are and how they are started
keys        key pairs, as wg writes them
daemon      one running daemon: its pid, its log, its UAPI socket
lab         everything one test has made, and its removal; a whole tunnel in one call
traffic     ping, TCP and UDP whose content is checked, iperf3
wire        counts WireGuard messages on the wire, by nftables
relay       a UDP relay that loses and reorders
handshake   a WireGuard initiator in Python that can also misbehave
tracing     system calls that fail on purpose, by strace
"""
