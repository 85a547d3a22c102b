"""What goes through the tunnel: pings, and one TCP stream for some seconds.

Each runs in a process of its own inside a node's namespace, so that the node's CPU time stays the
daemon's alone. iperf3 is used where it is installed.
"""

from __future__ import annotations

import json
import math
import os
import select
import shutil
import socket
import struct
import time
from pathlib import Path
from typing import Any

from pywg.demo.process import Channel, Child, enter_network, start
from pywg.errors import PywgError
from pywg.host import programs

PORT = 5201
CHUNK = 1 << 20
REPLY_TIMEOUT_S = 12.0  # two handshake attempts
START_TIMEOUT_S = 5.0
ICMP_ECHO = 8
_LISTENING = "0A"


def ping(pid: int, address: str, count: int) -> tuple[int, list[float]]:
    """Unix time of the first echo request, and the round-trip times in milliseconds."""
    with Child(lambda channel: _ping(channel, pid, address, count)) as child:
        answer = child.receive()
    return answer["sent_unix_ns"], answer["times_ms"]


def _ping(channel: Channel, pid: int, address: str, count: int) -> None:
    enter_network(pid)
    times_ms = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        sent_unix_ns = time.time_ns()
        for sequence in range(count):
            began = time.perf_counter()
            icmp.sendto(_echo_request(sequence), (address, 0))
            _await_reply(icmp, address, sequence)
            times_ms.append(1000 * (time.perf_counter() - began))
    channel.send({"sent_unix_ns": sent_unix_ns, "times_ms": times_ms})


def _echo_request(sequence: int) -> bytes:
    payload = b"pywg" * 14
    head = struct.pack("!BBHHH", ICMP_ECHO, 0, 0, os.getpid() & 0xFFFF, sequence)
    words = struct.unpack(f"!{(len(head) + len(payload)) // 2}H", head + payload)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~total & 0xFFFF
    return struct.pack("!BBHHH", ICMP_ECHO, 0, checksum, os.getpid() & 0xFFFF, sequence) + payload


def _await_reply(icmp: socket.socket, address: str, sequence: int) -> None:
    limit = time.monotonic() + REPLY_TIMEOUT_S
    while (left := limit - time.monotonic()) > 0:
        if not select.select([icmp], [], [], left)[0]:
            break
        packet = icmp.recv(2048)
        body = packet[(packet[0] & 15) * 4 :]
        kind, _, _, identity, number = struct.unpack("!BBHHH", body[:8])
        if kind == 0 and identity == os.getpid() & 0xFFFF and number == sequence:
            return
    raise PywgError(f"no answer to ping from {address} within {REPLY_TIMEOUT_S:.0f} s")


def transfer(source_pid: int, sink_pid: int, address: str, seconds: float) -> dict[str, Any]:
    """One TCP stream from source to sink: bytes, seconds, mbit_per_s, tool."""
    iperf3 = shutil.which("iperf3")
    if iperf3 is None:
        with Child(lambda channel: _sink(channel, sink_pid, address)) as sink:
            sink.receive()
            with Child(lambda channel: _source(channel, source_pid, address, seconds)) as source:
                source.receive()
            received = sink.receive()
        return _figures(received["bytes"], received["seconds"], "built-in sender")
    with Child(lambda channel: _iperf3_server(channel, iperf3, sink_pid, address)) as server:
        server.receive()
        with Child(
            lambda channel: _iperf3(channel, iperf3, source_pid, address, seconds)
        ) as client:
            summary = client.receive()["end"]
    received = summary["sum_received"]
    figures = _figures(received["bytes"], received["seconds"], "iperf3")
    figures["retransmits"] = summary["sum_sent"].get("retransmits", 0)
    return figures


def _figures(count: int, seconds: float, tool: str) -> dict[str, Any]:
    mbit_per_s = count * 8 / seconds / 1e6 if seconds else 0.0
    return {"bytes": count, "seconds": seconds, "mbit_per_s": mbit_per_s, "tool": tool}


# Without iperf3


def _sink(channel: Channel, pid: int, address: str) -> None:
    enter_network(pid)
    buffer = bytearray(CHUNK)
    with socket.create_server((address, PORT)) as server:
        channel.send({"listening": True})
        stream, _ = server.accept()
        count, began = 0, time.monotonic()
        with stream:
            while length := stream.recv_into(buffer):
                count += length
        channel.send({"bytes": count, "seconds": time.monotonic() - began})


def _source(channel: Channel, pid: int, address: str, seconds: float) -> None:
    enter_network(pid)
    chunk = bytes(CHUNK)
    limit = time.monotonic() + seconds
    with socket.create_connection((address, PORT), timeout=START_TIMEOUT_S) as stream:
        stream.settimeout(REPLY_TIMEOUT_S)
        while time.monotonic() < limit:
            stream.sendall(chunk)
    channel.send({"done": True})


# With iperf3


def _iperf3_server(channel: Channel, program: str, pid: int, address: str) -> None:
    enter_network(pid)
    server = start([program, "--server", "--one-off", "--bind", address])
    try:
        limit = time.monotonic() + START_TIMEOUT_S
        while not _is_listening(PORT):
            if server.poll() is not None or time.monotonic() > limit:
                raise PywgError("iperf3 does not start as a server")
            time.sleep(0.005)
        channel.send({"listening": True})
        server.wait()
    finally:
        server.kill()
        server.wait()


def _iperf3(channel: Channel, program: str, pid: int, address: str, seconds: float) -> None:
    enter_network(pid)
    whole = str(max(1, math.ceil(seconds)))
    client = start([program, "--client", address, "--time", whole, "--json"], piped=True)
    try:
        output, _ = client.communicate(timeout=seconds + REPLY_TIMEOUT_S)
        summary = json.loads(output)
    except programs.Expired:
        raise PywgError(f"iperf3 did not end within {seconds + REPLY_TIMEOUT_S:.0f} s") from None
    except ValueError:
        raise PywgError("iperf3 did not answer in JSON") from None
    finally:
        client.kill()
        client.wait()
    if "error" in summary:
        raise PywgError(f"iperf3: {summary['error']}")
    end = summary["end"]
    channel.send({"end": {name: end[name] for name in ("sum_sent", "sum_received")}})


def _is_listening(port: int) -> bool:
    """Asked of /proc, since a connection would use up the one test of the server."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/self/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and fields[1].endswith(f":{port:04X}"):
                return True
    return False
