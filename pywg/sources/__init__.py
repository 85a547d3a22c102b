"""Peers from a store: a folder, a URL or etcd is followed, and its differences are applied.

Deciding is in ``values.py``, ``claims.py``, ``merge.py`` and ``differences.py``, by pure functions
and plain values; ``folder.py``, ``url.py`` and ``etcd.py`` touch a store each; ``follower.py``
connects them in a process of its own.
"""
