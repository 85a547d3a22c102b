"""Measures pywgd beside other WireGuard implementations; `scripts/bench` is the command.

command    arguments, the order of turns, what is written
contestants who takes part: how each is found, started and versioned
place      two namespaces, a veth pair, a daemon at each end, with any number of peers
underlays  what the veth pair does with trains of datagrams, and proof of it
cases      one function for each group of measures
iperf      TCP streams
generator  UDP datagrams at a given rate; runs as a process of its own
udp_rate   the highest rate without loss: a bounded search
figures    medians, percentiles, ratios
report     table and JSON
plots      SVG
progress   the line on standard error
machine    what stands in the header

figures, report, plots, progress and the search know nothing of the kernel and are tested alone.
"""
