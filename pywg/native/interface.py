"""Interface: the WireGuard protocol alone. Bytes in, bytes out; time is an argument.

For simulators, tests and transports of one's own. Knows no socket and no file; the clock is read
only by the default of ``now``. All packets go in batches; a batch of one is fine.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from time import CLOCK_BOOTTIME, clock_gettime_ns, time_ns
from typing import TYPE_CHECKING, NamedTuple, Self

from pywg.keys import PublicKey
from pywg.native import abi, library
from pywg.native.addresses import SocketAddress
from pywg.native.batch import Batch
from pywg.native.calls import check, new_diagnostic, read_text
from pywg.native.owned import Owned
from pywg.native.packets import (
    FLAGS,
    HEADROOM,
    OVERHEAD,
    SIZES,
    Buffer,
    Clock,
    Packet,
    Verdict,
    drop_names,
    give,
    kept_for_opening,
    kept_for_sealing,
    take,
)

if TYPE_CHECKING:
    # With a text for a configuration none of it is needed, and half of the time is spent with it.
    from pywg.config import Config
    from pywg.wireguard.status import InterfaceStatus

__all__ = ["Batch", "Interface", "Now", "Packet", "SocketAddress", "Verdict", "now"]

HANDSHAKE_LENGTH_MAX = 148
NEVER = (1 << 64) - 1
POLL_BATCH = 16
MTU_DEFAULT = 1420  # what 0 means to the core
MTU_MAX = 65535


class Now(NamedTuple):
    """Both clocks, read once for each batch, in nanoseconds.

    ``boot_ns``: CLOCK_BOOTTIME; any clock that never goes back will do. ``unix_ns``:
    CLOCK_REALTIME, since 1970; the timestamps of handshakes are made of it.
    """

    boot_ns: int
    unix_ns: int


def now() -> Now:
    """Both clocks at this instant, for ``now=`` of several calls. Raises nothing."""
    return Now(clock_gettime_ns(CLOCK_BOOTTIME), time_ns())


class Interface(Owned):
    """A private key and its peers: seals inner packets, opens datagrams, says what else to send.

    Threads wait for one another. Every method raises ``DeviceError``: with ``Status.CLOSED`` after
    ``close``, with ``Status.FORKED`` in a forked child, where an interface is of no use. What else
    a method raises is said with it. ``mtu``: of the inner packets, in bytes; a longer one is
    DROPPED.
    """

    def __init__(
        self,
        config: Config | str | None = None,
        *,
        mtu: int = MTU_DEFAULT,
        entropy: Callable[[int], bytes] | None = None,
        now: Now | None = None,
    ) -> None:
        """``config`` and ``now``: as for ``set``. ``mtu``: of the inner packets, which bounds
        their padding; 0 means 1420. ``entropy(length)`` replaces the kernel's random bytes, for
        tests that repeat; it may not call methods of the interface.

        ValueError: ``mtu`` is not 0 to 65535. DeviceError: no memory, or ``entropy`` failed. What
        ``set`` raises.
        """
        super().__init__("")
        if not 0 <= mtu <= MTU_MAX:
            raise ValueError(f"an MTU is 0 to {MTU_MAX}, not {mtu}")
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
        calls = _untyped_calls()
        self._seal, self._open, self._poll = calls
        if config is not None:
            try:
                self.set(config, now)
            except BaseException:
                self.close()
                raise

    def set(self, config: Config | str, now: Now | None = None) -> None:
        """Makes it what a Config says, peers that stay in place, or applies UAPI `set` text as it
        is: all of it or nothing.

        It asks nobody: a name in a Config raises UapiError, and ``pywg.resolve`` looks names up.
        DeviceError: the text is wrong (``Status.CONFIGURATION``, with its line), too many peers
        (``LIMIT``), no memory. ValueError: ``now`` is none.
        """
        data = (config if isinstance(config, str) else self._set_text(config)).encode("utf-8")
        diagnostic = new_diagnostic()
        status = self._library.pywg_interface_set(
            self._open_handle(), _clock(now), data, len(data), ctypes.byref(diagnostic)
        )
        check(status, diagnostic, "")

    def get(self) -> InterfaceStatus:
        """Its configuration and the statistics of its peers. It holds the private key."""
        from pywg.wireguard import uapi

        return uapi.parse_get(self.get_text())

    def _set_text(self, config: Config) -> str:
        from pywg.wireguard import uapi
        from pywg.wireguard.changes import of_config, synchronizing

        return uapi.changes_text(synchronizing(of_config(config), self.get()))

    def get_text(self) -> str:
        """The answer of UAPI `get`. It holds the private key."""
        return read_text(self._library.pywg_interface_get, self._open_handle(), "")

    def peer_key(self, peer: int) -> PublicKey:
        """The public key of the peer that ``Packet.peer`` and ``Batch.peers`` name.

        DeviceError with ``Status.NOT_FOUND``: the peer was removed, or 0.
        """
        raw = ctypes.create_string_buffer(32)
        if not 0 <= peer <= NEVER:
            raise ValueError(f"the number of a peer has 64 bits: not {peer}")
        status = self._library.pywg_interface_peer_key(self._open_handle(), peer, raw)
        check(status, None, "")
        return PublicKey(raw.raw)

    def peer_number(self, key: PublicKey) -> int:
        """The number of a peer, for as long as the interface has it.

        DeviceError with ``Status.NOT_FOUND``: there is no such peer.
        """
        number = ctypes.c_uint64()
        status = self._library.pywg_interface_peer_number(
            self._open_handle(), bytes(key), ctypes.byref(number)
        )
        check(status, None, "")
        return number.value

    def seal(self, packets: Sequence[Buffer], now: Now | None = None) -> list[Packet]:
        """Inner packets to datagrams: SEALED, STAGED (then call ``poll``) or DROPPED, in order.

        ValueError: ``now`` is none. TypeError: a packet is no bytes.
        """
        handle, count = self._open_handle(), len(packets)
        if count < 2 and (not count or len(packets[0]) <= ONE_MAX):
            return [self._seal_one(packets[0], now)] if count else []
        capacity = sum(map(len, packets)) + (count + 1) * (OVERHEAD + HEADROOM)
        scratch = take(kept_for_sealing, count, capacity)
        _set_clock(scratch.clock, now)
        scratch.lay_out(packets, HEADROOM, OVERHEAD + HEADROOM)
        status = self._seal(
            handle,
            scratch.clock.pointer,
            scratch.inner.pointer,
            scratch.outer.pointer,
            scratch.peers.pointer,
            SIZES[count],
            scratch.why.pointer,
        )
        if status:
            scratch.why.complain(status)
        result = scratch.sealed(count)
        give(kept_for_sealing, scratch)
        return result

    def receive(
        self,
        datagrams: Sequence[tuple[Buffer, SocketAddress]],
        now: Now | None = None,
        *,
        under_load: bool = False,
    ) -> list[Packet]:
        """Datagrams to inner packets: DELIVER, HANDSHAKE (then ``poll``), KEEPALIVE, DROPPED.

        ``under_load`` demands cookies of handshakes (whitepaper section 5.3). ValueError: an
        address or ``now`` is none. TypeError: a datagram is no bytes.
        """
        handle, count = self._open_handle(), len(datagrams)
        if count < 2 and (not count or len(datagrams[0][0]) <= ONE_MAX):
            return [self._open_one(*datagrams[0], now, under_load)] if count else []
        contents = [data for data, _ in datagrams]
        addresses = [address for _, address in datagrams]
        scratch = take(kept_for_opening, count, sum(map(len, contents)))
        _set_clock(scratch.clock, now)
        scratch.lay_out(contents, 0, 0)
        scratch.come_from(addresses)
        status = self._open(
            handle,
            scratch.clock.pointer,
            scratch.outer.pointer,
            scratch.peers.pointer,
            SIZES[count],
            FLAGS[under_load],
            scratch.why.pointer,
        )
        if status:
            scratch.why.complain(status)
        result = scratch.opened(addresses)
        give(kept_for_opening, scratch)
        return result

    def _seal_one(self, packet: Buffer, now: Now | None) -> Packet:
        batch = _ones.pop() if _ones else Batch(1)
        length = len(packet)
        _fill(batch.packets[0], length, packet)
        self.seal_into(batch, (length,), now)
        result = batch.result(0)
        _ones.append(batch)
        return result

    def _open_one(
        self, datagram: Buffer, source: SocketAddress, now: Now | None, under_load: bool
    ) -> Packet:
        batch = _ones.pop() if _ones else Batch(1)
        length = len(datagram)
        _fill(batch.datagrams[0], length, datagram)
        self.open_into(batch, (length,), source, now, under_load=under_load)
        result = batch.result(0)
        _ones.append(batch)
        return result

    def poll(self, now: Now | None = None) -> list[Packet]:
        """Everything the protocol itself wants sent now: handshakes, keepalives, staged packets.

        ValueError: ``now`` is none.
        """
        needed = max(self.mtu + OVERHEAD, HANDSHAKE_LENGTH_MAX)
        batch = _polling.pop() if _polling else Batch(POLL_BATCH, max(needed, POLL_SLOT))
        if batch.size < needed:
            batch = Batch(POLL_BATCH, needed)
        packets: list[Packet] = []
        while True:
            written = self.poll_into(batch, now)
            if written:
                packets += map(batch.result, range(written))
            if written < POLL_BATCH:
                break
        if batch.size == POLL_SLOT and len(_polling) < 4:
            _polling.append(batch)
        return packets

    def seal_into(self, batch: Batch, lengths: Sequence[int], now: Now | None = None) -> None:
        """Seals where they lie the inner packets of the first slots, whose lengths are given:
        ``Batch.sealed`` lists the datagrams, ``Batch.verdicts`` says what became of each.

        ValueError: the batch has fewer slots, or ``now`` is none. DeviceError with
        ``Status.BUFFER_TOO_SMALL``: a length is more than a slot has room for; nothing is done.
        """
        handle = self._handle or self._open_handle()
        count = batch._holds_packets(lengths)
        if now is None:
            batch._clock.read()
        else:
            _set_clock(batch._clock, now)
        status = self._seal(
            handle,
            batch._clock.pointer,
            batch._inner.pointer,
            batch._outer.pointer,
            batch._numbers.pointer,
            SIZES[count],
            batch._why.pointer,
        )
        if status:
            batch._why.complain(status)
        batch._used = count

    def open_into(
        self,
        batch: Batch,
        lengths: Sequence[int],
        sources: SocketAddress | Sequence[SocketAddress],
        now: Now | None = None,
        *,
        under_load: bool = False,
    ) -> None:
        """Opens where they lie the datagrams of the first slots, whose lengths and sources are
        given, or the one source of all: ``Batch.opened`` lists the inner packets,
        ``Batch.verdicts`` says what became of each. Otherwise as ``receive``.

        ValueError: the batch has fewer slots, there are not as many sources as lengths, or an
        address or ``now`` is none. DeviceError with ``Status.INVALID_ARGUMENT``: a length is more
        than a slot has; nothing is done.
        """
        handle = self._handle or self._open_handle()
        count = batch._holds_datagrams(lengths, sources)
        if now is None:
            batch._clock.read()
        else:
            _set_clock(batch._clock, now)
        status = self._open(
            handle,
            batch._clock.pointer,
            batch._outer.pointer,
            batch._numbers.pointer,
            SIZES[count],
            FLAGS[under_load],
            batch._why.pointer,
        )
        if status:
            batch._why.complain(status)
        batch._used = count

    def poll_into(self, batch: Batch, now: Now | None = None) -> int:
        """Writes what the protocol itself wants sent, and returns how many slots have a datagram;
        ``Batch.sealed`` lists them. If that is all of them, there may be more: call again.

        ValueError: ``now`` is none. DeviceError with ``Status.BUFFER_TOO_SMALL``: a slot has less
        than MTU + 48 bytes.
        """
        handle = self._open_handle()
        batch._begin(batch.count)
        batch._sources = None
        _set_clock(batch._clock, now)
        status = self._poll(
            handle,
            batch._clock.pointer,
            batch._outer.pointer,
            batch._numbers.pointer,
            SIZES[batch.count],
            batch._written.pointer,
            batch._why.pointer,
        )
        if status:
            batch._why.complain(status)
        batch._used = batch._written.view[0]
        return batch._used

    def expire(self, now: Now | None = None) -> None:
        """Lets due timers fire: call it when ``deadline`` has passed, and then ``poll``.

        ValueError: ``now`` is none.
        """
        check(self._library.pywg_interface_expire(self._open_handle(), _clock(now)), None, "")

    def deadline(self) -> int | None:
        """When ``expire`` is next due, on the boot_ns clock; None for never."""
        boot_ns = ctypes.c_uint64()
        status = self._library.pywg_interface_deadline(self._open_handle(), ctypes.byref(boot_ns))
        check(status, None, "")
        return None if boot_ns.value == NEVER else boot_ns.value

    def dropped(self) -> dict[str, int]:
        """Packets refused so far, by reason; all reasons are there."""
        counts: dict[str, int] = {}
        count = ctypes.c_uint64()
        for number, name in enumerate(drop_names()):
            status = self._library.pywg_interface_dropped(
                self._open_handle(), number, ctypes.byref(count)
            )
            check(status, None, "")
            counts[name] = count.value
        return counts

    def close(self) -> None:
        """Waits for the calls of other threads and zeroes all keys. A second time is harmless, and
        in a forked child it does nothing. Raises nothing."""
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

    def __repr__(self) -> str:
        return f"<pywg.Interface {'closed' if self._handle is None else 'open'}>"

    def _make_locks(self) -> None:
        """None: the core lets one call in at a time, and close waits for those that are in."""


POLL_SLOT = 2048
ONE_MAX = 2048 - OVERHEAD
# Of all interfaces; each is in the hands of one call at a time.
_polling: list[Batch] = []
_ones: list[Batch] = []


def _fill(view: memoryview, length: int, content: Buffer) -> None:
    try:
        view[:length] = content
    except ValueError:
        raise TypeError("a packet is bytes, a bytearray or a memoryview of bytes") from None


@cache
def _untyped_calls() -> tuple[Callable[..., int], Callable[..., int], Callable[..., int]]:
    """The three calls that move packets. Without types, which ctypes would look at each time: all
    arguments are ctypes objects."""
    core = library.load()
    names = ("seal", "receive", "poll")
    seal, receive, poll = (core[f"pywg_interface_{name}_batch"] for name in names)
    return seal, receive, poll


def _set_clock(clock: Clock, value: Now | None) -> None:
    if value is None:
        clock.read()
        return
    try:
        boot_ns, unix_ns = value
    except (TypeError, ValueError):
        raise ValueError(f"now is Now(boot_ns, unix_ns), not {value!r}") from None
    clock.set(boot_ns, unix_ns)


def _clock(value: Now | None) -> object:
    clock = Clock()
    _set_clock(clock, value)
    return clock.reference()


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
