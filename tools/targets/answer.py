"""Answers pings inside a tunnel over a UDP socket of its own: examples/sockets.c in Python.

    python3 answer.py PORT FILE

FILE has UAPI text. The Python of another machine runs it, with the wheel for that machine; so it
imports nothing but pywg. Ends with its caller's standard input.
"""

from __future__ import annotations

import select
import socket
import sys
from pathlib import Path

import pywg
from pywg.drive import Driver

ECHO_REQUEST = 8


def reply(packet: memoryview) -> bytes | None:
    """To an echo request over IPv4. The checksum changes by what the type does."""
    if packet[0] != 0x45 or packet[9] != socket.IPPROTO_ICMP or packet[20] != ECHO_REQUEST:
        return None
    total = int.from_bytes(packet[22:24], "big") + (ECHO_REQUEST << 8)
    checksum = (total & 0xFFFF) + (total >> 16)
    source, destination = packet[12:16], packet[16:20]
    head = bytes(packet[:12]) + bytes(destination) + bytes(source)
    return head + b"\0\0" + checksum.to_bytes(2, "big") + bytes(packet[24:])


def main() -> None:
    port, text = int(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, pywg.Interface(text) as interface:
        udp.bind(("127.0.0.1", port))

        def answer(packet: memoryview) -> None:
            echo = reply(packet)
            if echo is not None:
                driver.send(echo)

        driver = Driver(interface, [udp], answer)
        print(f"ready {sys.byteorder} {sys.maxsize.bit_length() + 1}", flush=True)
        while True:
            ready, _, _ = select.select([udp, sys.stdin], [], [], driver.timeout())
            if sys.stdin in ready:
                return
            driver.readable(udp)
            driver.expire()


if __name__ == "__main__":
    main()
