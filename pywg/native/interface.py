"""Interface: the WireGuard protocol alone. Bytes in, bytes out; time is an argument.

For simulators, tests and transports of one's own. Knows no socket and no file; the clock is read
only by the default of ``now``. All packets go in batches; a batch of one is fine.
"""

from __future__ import annotations

import ctypes
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Self

from pywg.config import Config
from pywg.native import abi, library
from pywg.native.device import check, new_diagnostic, read_text
from pywg.native.owned import Owned
from pywg.wireguard import uapi
from pywg.wireguard.changes import of_config, synchronizing
from pywg.wireguard.status import InterfaceStatus

OVERHEAD = 48  # header 16, tag 16 and up to 15 of padding
HANDSHAKE_LENGTH_MAX = 148
NEVER = (1 << 64) - 1
POLL_BATCH = 16
MTU_DEFAULT = 1420  # what 0 means to the core

# As socket.recvfrom returns it and socket.sendto takes it.
SocketAddress = tuple[str, int] | tuple[str, int, int, int]


class Now(NamedTuple):
    """Both clocks, read once for each batch."""

    boot_ns: int
    unix_ns: int


def now() -> Now:
    return Now(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())


class Verdict(IntEnum):
    """What became of a packet."""

    DROPPED = abi.PYWG_VERDICT_DROPPED
    SEALED = abi.PYWG_VERDICT_SEALED
    STAGED = abi.PYWG_VERDICT_STAGED
    DELIVER = abi.PYWG_VERDICT_DELIVER
    HANDSHAKE = abi.PYWG_VERDICT_HANDSHAKE
    KEEPALIVE = abi.PYWG_VERDICT_KEEPALIVE


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet after the core looked at it."""

    verdict: Verdict
    data: bytes = b""
    address: SocketAddress | None = None  # where to send it, or where it came from
    drop: str | None = None  # why, if dropped: "invalid_mac1", ...


class Interface(Owned):
    """A private key and its peers. Threads wait for one another; in a forked child it is of no use:
    DeviceError with Status.FORKED."""

    def __init__(
        self,
        config: Config | str | None = None,
        *,
        mtu: int = MTU_DEFAULT,
        entropy: Callable[[int], bytes] | None = None,
        now: Now | None = None,
    ) -> None:
        """``entropy(length)`` replaces the kernel's random bytes: for tests that repeat. It may not
        call methods of the interface."""
        super().__init__("")
        self._library = library.load()
        self.mtu = mtu or MTU_DEFAULT
        # ctypes keeps no reference to a callback: this attribute does, for the life of the handle.
        self._entropy = abi.pywg_entropy() if entropy is None else _entropy_callback(entropy)
        options = abi.pywg_interface_options(
            size=ctypes.sizeof(abi.pywg_interface_options),
            mtu=mtu,
            entropy=self._entropy,
        )
        handle = ctypes.c_void_p()
        diagnostic = new_diagnostic()
        status = self._library.pywg_interface_open(
            ctypes.byref(options), ctypes.byref(handle), ctypes.byref(diagnostic)
        )
        check(status, diagnostic, "")
        self._handle = handle
        if config is not None:
            try:
                self.set(config, now)
            except BaseException:
                self.close()
                raise

    def set(self, config: Config | str, now: Now | None = None) -> None:
        """Makes it what a Config says, peers that stay in place, or applies UAPI `set` text as it
        is. It asks nobody: names in a Config raise UapiError; ``pywg.resolve`` looks them up."""
        data = (config if isinstance(config, str) else self._set_text(config)).encode("utf-8")
        diagnostic = new_diagnostic()
        status = self._call(
            self._library.pywg_interface_set,
            _clock(now),
            data,
            len(data),
            ctypes.byref(diagnostic),
        )
        check(status, diagnostic, "")

    def get(self) -> InterfaceStatus:
        return uapi.parse_get(self.get_text())

    def _set_text(self, config: Config) -> str:
        return uapi.changes_text(synchronizing(of_config(config), self.get()))

    def get_text(self) -> str:
        """The answer of UAPI `get`. It holds the private key."""
        with self._calls:
            return read_text(self._library.pywg_interface_get, self._open_handle(), "")

    def seal(self, packets: Sequence[bytes], now: Now | None = None) -> list[Packet]:
        """Inner packets to datagrams: SEALED, STAGED (then call ``poll``) or DROPPED, in order."""
        plain = _Batch(packets)
        sealed = _Batch.empty([len(packet) + OVERHEAD for packet in packets])
        status = self._call(
            self._library.pywg_interface_seal, _clock(now), plain.array, sealed.array, len(packets)
        )
        check(status, None, "")
        return sealed.results(self._drop_name)

    def receive(
        self,
        datagrams: Sequence[tuple[bytes, SocketAddress]],
        now: Now | None = None,
        *,
        under_load: bool = False,
    ) -> list[Packet]:
        """Datagrams to inner packets: DELIVER, HANDSHAKE (then ``poll``), KEEPALIVE, DROPPED."""
        batch = _Batch([data for data, _ in datagrams])
        for packet, (_, address) in zip(batch.array, datagrams, strict=False):
            packet.endpoint = _to_endpoint(address)
        status = self._call(
            self._library.pywg_interface_receive,
            _clock(now),
            batch.array,
            len(datagrams),
            int(under_load),
        )
        check(status, None, "")
        return batch.results(self._drop_name)

    def poll(self, now: Now | None = None) -> list[Packet]:
        """Everything the protocol itself wants sent now: handshakes, keepalives, staged packets."""
        clock = _clock(now)
        packets: list[Packet] = []
        capacity = max(self.mtu + OVERHEAD, HANDSHAKE_LENGTH_MAX)
        written = ctypes.c_size_t(POLL_BATCH)
        while written.value == POLL_BATCH:
            batch = _Batch.empty([capacity] * POLL_BATCH)
            status = self._call(
                self._library.pywg_interface_poll,
                clock,
                batch.array,
                POLL_BATCH,
                ctypes.byref(written),
            )
            check(status, None, "")
            packets += batch.results(self._drop_name, written.value, Verdict.SEALED)
        return packets

    def expire(self, now: Now | None = None) -> None:
        """Lets due timers fire: call it when ``deadline`` has passed, and then ``poll``."""
        check(self._call(self._library.pywg_interface_expire, _clock(now)), None, "")

    def deadline(self) -> int | None:
        """When ``expire`` is next due, on the boot_ns clock; None for never."""
        boot_ns = ctypes.c_uint64()
        status = self._call(self._library.pywg_interface_deadline, ctypes.byref(boot_ns))
        check(status, None, "")
        return None if boot_ns.value == NEVER else boot_ns.value

    def dropped(self) -> dict[str, int]:
        """Packets refused so far, by reason; all reasons are there."""
        counts: dict[str, int] = {}
        number = 0
        while (name := self._drop_name(number)) is not None:
            count = ctypes.c_uint64()
            status = self._call(self._library.pywg_interface_dropped, number, ctypes.byref(count))
            check(status, None, "")
            counts[name] = count.value
            number += 1
        return counts

    def close(self) -> None:
        """Zeroes all keys. A second time is harmless."""
        with self._calls:
            handle, self._handle = self._handle, None
            if handle is not None:
                self._library.pywg_interface_close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _make_locks(self) -> None:
        # close must not overlap with another call. Whoever calls from its entropy function is
        # told so by the core.
        self._calls = threading.RLock()

    def _call(self, function: Callable[..., int], *arguments: object) -> int:
        with self._calls:
            return function(self._open_handle(), *arguments)

    def _drop_name(self, number: int) -> str | None:
        name = self._library.pywg_drop_name(number)
        return None if name is None else str(name, "ascii")


class _Batch:
    """An array of pywg_packet over one piece of memory that lives as long as the array."""

    def __init__(self, contents: Sequence[bytes], capacities: Sequence[int] | None = None) -> None:
        sizes = [len(data) for data in contents] if capacities is None else capacities
        self._memory = ctypes.create_string_buffer(max(sum(sizes), 1))
        self.array = (abi.pywg_packet * max(len(sizes), 1))()
        self._count = len(sizes)
        address = ctypes.addressof(self._memory)
        if contents:
            ctypes.memmove(self._memory, b"".join(contents), sum(sizes))
        for packet, size in zip(self.array, sizes, strict=False):
            packet.data = address
            packet.length = size if contents else 0
            packet.capacity = size
            address += size

    @classmethod
    def empty(cls, capacities: Sequence[int]) -> _Batch:
        return cls((), capacities)

    def results(
        self,
        drop_name: Callable[[int], str | None],
        count: int | None = None,
        verdict: Verdict | None = None,
    ) -> list[Packet]:
        """Copies out what the core wrote. ``verdict`` where the call has only one."""
        number = self._count if count is None else count
        packets = []
        for index in range(number):
            raw = self.array[index]
            outcome = Verdict(raw.verdict) if verdict is None else verdict
            with_data = outcome in (Verdict.SEALED, Verdict.DELIVER)
            data = ctypes.string_at(raw.data, raw.length) if with_data else b""
            drop = drop_name(raw.drop) if outcome is Verdict.DROPPED else None
            packets.append(Packet(outcome, data, _from_endpoint(raw.endpoint), drop))
        return packets


def _clock(value: Now | None) -> object:
    boot_ns, unix_ns = now() if value is None else value
    return ctypes.byref(abi.pywg_now(boot_ns, unix_ns))


def _to_endpoint(address: SocketAddress) -> abi.pywg_endpoint:
    host, _, zone = address[0].partition("%")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    raw = socket.inet_pton(family, host)
    scope_id = address[3] if len(address) == 4 else int(zone or 0)
    endpoint = abi.pywg_endpoint(
        family=6 if family == socket.AF_INET6 else 4, port=address[1], scope_id=scope_id
    )
    ctypes.memmove(endpoint.address, raw, len(raw))
    return endpoint


def _from_endpoint(endpoint: abi.pywg_endpoint) -> SocketAddress | None:
    raw = bytes(endpoint.address)
    match endpoint.family:
        case 4:
            return socket.inet_ntop(socket.AF_INET, raw[:4]), endpoint.port
        case 6:
            host = socket.inet_ntop(socket.AF_INET6, raw)
            return host, endpoint.port, 0, endpoint.scope_id
        case _:
            return None


def _entropy_callback(entropy: Callable[[int], bytes]) -> object:
    def fill(context: object, out: object, length: int) -> int:
        # An exception cannot cross C, and ctypes would answer 0 for it, "filled". So whatever
        # happens here, Ctrl-C too, fails the call that needed the bytes.
        try:
            data = entropy(length)
            if len(data) != length:
                return 1
            ctypes.memmove(out, bytes(data), length)  # type: ignore[arg-type]
        except BaseException:
            return 1
        return 0

    return abi.pywg_entropy(fill)
