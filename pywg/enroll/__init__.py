"""A server's file and those of its clients: making them, and keeping them together.

What is to be written is decided by pure functions over texts, keys and a ``Server``; ``files.py``
writes, ``running.py`` tells the running tunnel.
"""
