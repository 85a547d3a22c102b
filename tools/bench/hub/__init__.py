"""Measures one WireGuard daemon alone: all its peers are played by one program that costs little.

ends.c     that program: a session for each of ten thousand peers, packets sealed ahead, counters
place      two namespaces, the hub in one, the ends in the other
figures    packets a second, CPU for each packet, ratios
command    `scripts/bench_hub`: many active peers beside other implementations
threads    `scripts/bench_threads`: what a second thread adds
"""
