"""The pictures of docs/, made by `scripts/pictures` from what really runs.

command    arguments
top        `pywg top` above a hub with five peers and traffic, in namespaces
benchmark  bars of a run of scripts/bench
"""
