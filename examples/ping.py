"""Pings a host through a tunnel, without root, without TUN: python ping.py CONFIG ADDRESS"""

import asyncio
import socket
import sys
from ipaddress import IPv4Address

import pywg
from pywg.drive.aio import AsyncDriver


def checksum(data: bytes) -> bytes:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")


def echo_request(source: IPv4Address, destination: IPv4Address) -> bytes:
    message = bytes([8, 0, 0, 0, 0, 7, 0, 1]) + b"pywg"
    message = message[:2] + checksum(message) + message[4:]
    header = bytes([0x45, 0, 0, 20 + len(message), 0, 0, 0, 0, 64, 1, 0, 0])
    header += source.packed + destination.packed
    return header[:10] + checksum(header) + header[12:] + message


# excerpt begins
async def ping(config: pywg.Config, address: IPv4Address) -> None:
    source = IPv4Address(config.interface.addresses[0].ip)
    with (
        pywg.Interface(pywg.resolve(config)) as interface,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        async with AsyncDriver(interface, [udp]) as tunnel:
            tunnel.send(echo_request(source, address))
            reply = await asyncio.wait_for(tunnel.receive(), 10)
    kind = "echo reply" if reply[20] == 0 else f"ICMP type {reply[20]}"
    print(f"{kind} from {IPv4Address(reply[12:16])}, {len(reply)} bytes")


# excerpt ends
asyncio.run(ping(pywg.Config.load(sys.argv[1]), IPv4Address(sys.argv[2])))
