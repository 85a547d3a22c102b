"""Where everything end to end takes place: namespaces, daemons, traffic and a small WireGuard
initiator, for tests and commands.

namespaces  a network namespace, and a cable between two of them
host        namespaces that look like a host to `wg-quick` and `pywg`: its files, its /run
containers  podman and buildah with storage and settings of their own
nameserver  a name server that says what it is told to
router      a namespace between others, which translates addresses
programs    the daemon under test and its peers: where they are and how they are started
keys        key pairs, as wg writes them
daemon      one running daemon: its pid, its log, its UAPI socket
lab         everything one test has made, and its removal; a whole tunnel in one call
traffic     ping, TCP and UDP whose content is checked, iperf3
ordinary    programs of an ordinary user, on a host whose TUN is open to everybody
overlay     a VXLAN or Geneve whose datagrams go through the tunnel
stream      checked datagrams that go on while something else happens
burst       many datagrams in one system call
echoes      datagrams that go and come back, none of which may be missing
echoes      datagrams that go and come back, of which none may be missing
memory_group  processes that may take so much memory together
embedder    programs in C that use the built library
etcd        a real etcd, and what is written to it
flood       handshake initiations from many addresses
squatter    somebody else on the host who tries for a UDP port all the time
prober      how long echo requests take, one each millisecond, while something else happens
silent      peers by the thousand that never answer
ways        which way datagrams take, each known by its number, while something else happens
web         a web site, in clear and by TLS, whose answer names who asked
wire        counts WireGuard messages on the wire, by nftables
seclusion   the folders that all daemons share, for one process alone
relay       a UDP relay that loses and reorders
handshake   a WireGuard initiator in Python that can also misbehave
terminal    a terminal of tmux, with a shell in it
tracing     system calls that fail on purpose, by strace
waiting     waits for an event, with a sentence that says for which

`keys.Key` is not `pywg.keys`, and `daemon.ask` is not `pywg`'s UAPI client, on purpose: what judges
pywg does not use pywg.
"""
