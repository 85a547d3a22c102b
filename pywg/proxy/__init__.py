"""`pywg proxy`: SOCKS5 and HTTP proxies whose other side is a tunnel without root.

What clients write is parsed by pure functions (``socks5``, ``http``); sockets inside are the
kernel's, made by the tunnel's helper; streams are moved by splice(2), so that they never come into
this process's memory.
"""
