"""The C ABI in sequences of calls with odd arguments, as far as docs/ABI.md lets a caller go.

Runs in a child of its own: whatever ends it is a finding, told with the iteration that repeats it.
No device is opened: that would need the right to make interfaces.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import random
from ctypes import byref, c_size_t, c_uint64, c_void_p, sizeof
from typing import TypeVar

from pywg.keys import PrivateKey
from pywg.native import abi, library
from tools.fuzz.target import Mismatch, run

INVALID, SMALL = abi.PYWG_INVALID_ARGUMENT, abi.PYWG_BUFFER_TOO_SMALL
STATUSES = set(range(abi.PYWG_SYSTEM, 1)) - {abi.PYWG_CLOSED}
GUARD = b"\xa7" * 64
KINDS = ["open", "set", "get", "seal", "receive", "poll", "expire", "deadline", "dropped"]
KINDS += ["names", "traffic", "device", "handle", "key", "peer"]
T = TypeVar("T")
Packets = ctypes.Array[abi.pywg_packet]
SIZES = (0, 1, 31, 32, 48, 148, 1500, 1548, 2048, 65535 + 48)


class Buffer:
    """Bytes with a known pattern behind them."""

    def __init__(self, size: int, content: bytes = b"") -> None:
        self.size = size
        self.memory = ctypes.create_string_buffer(
            content.ljust(size, b"\x55") + GUARD, size + len(GUARD)
        )

    @property
    def address(self) -> int:
        return ctypes.addressof(self.memory)

    def expect_whole(self, what: str) -> None:
        if self.memory.raw[self.size :] != GUARD:
            raise Mismatch(f"{what} wrote behind its buffer of {self.size}")


class Peers:
    """Room for the numbers of ``count`` peers, or none."""

    def __init__(self, count: int, *, is_asked_for: bool) -> None:
        self.buffer = Buffer(8 * count)
        self.numbers = (
            ctypes.cast(self.buffer.address, ctypes.POINTER(c_uint64)) if is_asked_for else None
        )


class Calls:
    """Two interfaces, and what is done to them."""

    def __init__(self, rng: random.Random, fault: str = "none") -> None:
        self.rng, self.fault = rng, fault
        self.core = library.load()
        self.now = abi.pywg_now(1 << 40, 1_700_000_000 * 10**9)
        self.handles = [self._open() for _ in range(2)]
        self.wire: list[bytes] = []
        for own, handle in enumerate(self.handles):
            self._configure(handle, own)

    def close(self) -> None:
        for handle in self.handles:
            self.core.pywg_interface_close(handle)
        self.core.pywg_interface_close(None)

    def step(self) -> None:
        name = self.rng.choice(KINDS)
        if self.fault == "panic" and self.rng.random() < 0.01:
            os.abort()
        getattr(self, f"_{name}_oddly")(self.rng.choice(self.handles))

    # Honest calls, on which the odd ones build

    def _open(self) -> c_void_p:
        options = abi.pywg_interface_options(size=sizeof(abi.pywg_interface_options))
        handle = c_void_p()
        self._expect(self.core.pywg_interface_open(byref(options), byref(handle), None), {0})
        return handle

    def _configure(self, handle: c_void_p, own: int) -> None:
        # Public keys of 0x40 * 32 and 0x48 * 32 as private ones
        keys = ("40" * 32, "48" * 32)
        public = bytes(PrivateKey(bytes.fromhex(keys[1 - own])).public).hex()
        text = (
            f"private_key={keys[own]}\nreplace_peers=true\npublic_key={public}\n"
            f"endpoint=192.0.2.{2 - own}:51820\nallowed_ip=10.0.0.{2 - own}/32\n"
        ).encode()
        status = self.core.pywg_interface_set(handle, byref(self.now), text, len(text), None)
        self._expect(status, {0})

    def _expect(self, status: int, among: set[int]) -> None:
        if status not in among:
            raise Mismatch(f"status {status}, which is not among {sorted(among)}")

    # Odd ones

    def _maybe(self, value: T, likely: float = 0.9) -> T | None:
        return value if self.rng.random() < likely else None

    def _diagnostic(self) -> abi.pywg_diagnostic:
        usual = sizeof(abi.pywg_diagnostic)
        return abi.pywg_diagnostic(size=self.rng.choice((usual, usual, usual, usual + 8, 0, 8)))

    def _judge(self, status: int, diagnostic: abi.pywg_diagnostic | None) -> None:
        self._expect(status, STATUSES)
        if diagnostic is None or diagnostic.size < sizeof(diagnostic):
            return
        if status and (diagnostic.status != status or not diagnostic.text):
            raise Mismatch(f"status {status} and a diagnostic that says {diagnostic.status}")

    def _open_oddly(self, _: c_void_p) -> None:
        usual = sizeof(abi.pywg_interface_options)
        options = abi.pywg_interface_options(
            size=self.rng.choice((usual, usual, usual + 64, 0, usual - 1)),
            mtu=self.rng.choice((0, 1, 68, 1420, 65535, 65536, 0xFFFFFFFF)),
            reserved=self.rng.getrandbits(32),
        )
        refuses = abi.pywg_entropy(lambda context, out, length: 1)
        if self.rng.random() < 0.3:
            options.entropy = refuses
        handle, diagnostic = c_void_p(1), self._diagnostic()
        out = self._maybe(byref(handle))
        status = self.core.pywg_interface_open(self._maybe(byref(options)), out, byref(diagnostic))
        self._judge(status, diagnostic)
        if status == 0:
            self.core.pywg_interface_close(handle)
        elif handle.value not in (None, 1):
            raise Mismatch("a failed open left a handle")

    def _set_oddly(self, handle: c_void_p) -> None:
        rng = self.rng
        keys = ("40" * 32, "48" * 32, "00" * 32, "ff" * 32, "5" * 63, "")
        pieces = [
            f"private_key={rng.choice(keys)}",
            f"public_key={rng.choice(keys)}",
            f"listen_port={rng.choice((0, 1, 65535, 65536, -1, 'x'))}",
            "replace_peers=true",
            "remove=true",
            f"allowed_ip={rng.choice(('10.0.0.1/32', '::/0', '1.2.3/4', '-0.0.0.0/0'))}",
            f"endpoint={rng.choice(('1.2.3.4:5', '[::1]:0', 'x'))}",
            f"persistent_keepalive_interval={rng.choice((0, 1, 65535, 65536))}",
            "",
            "=",
            "\0",
            "a" * rng.choice((1, 70000)),
        ]
        text = "\n".join(rng.choices(pieces, k=rng.randint(0, 12))).encode()
        if rng.random() < 0.03:
            lines = [f"public_key={number:064x}" for number in range(1, rng.randint(2, 3000))]
            text = "\n".join(lines).encode()
        diagnostic = self._diagnostic()
        before = self._told(handle)
        status = self.core.pywg_interface_set(
            self._maybe(handle, 0.95),
            self._maybe(byref(self.now)),
            self._maybe(text, 0.95),
            len(text),
            byref(diagnostic),
        )
        self._judge(status, diagnostic)
        if self.fault == "forgetful" and status:
            self._configure(handle, self.handles.index(handle))
        if status and self._told(handle) != before:
            raise Mismatch(f"a refused text changed something: {text[:400]!r}")

    def _told(self, handle: c_void_p) -> bytes:
        length = c_size_t()
        self.core.pywg_interface_get(handle, None, 0, byref(length))
        buffer = Buffer(length.value)
        self.core.pywg_interface_get(handle, buffer.memory, buffer.size, byref(length))
        buffer.expect_whole("get")
        return buffer.memory.raw[: length.value]

    def _get_oddly(self, handle: c_void_p) -> None:
        whole = self._told(handle)
        capacity = self.rng.choice((0, 1, len(whole) - 1, len(whole), len(whole) + 1))
        buffer, length = Buffer(max(0, capacity)), c_size_t(99)
        status = self.core.pywg_interface_get(
            handle, self._maybe(buffer.memory), buffer.size, self._maybe(byref(length))
        )
        self._expect(status, {0, SMALL, INVALID})
        buffer.expect_whole("get")
        if status == 0 and buffer.size < len(whole):
            raise Mismatch("get fits where it does not")
        if status == SMALL and (length.value != len(whole) or b"=" in buffer.memory.raw[:-64]):
            raise Mismatch("get that does not fit says another length, or wrote")

    def _packets(self, count: int, contents: list[bytes]) -> tuple[Packets, list[Buffer]]:
        array = (abi.pywg_packet * max(1, count))()
        buffers = []
        for packet, content in zip(array, contents, strict=False):
            capacity = max(len(content), self.rng.choice(SIZES))
            buffers.append(Buffer(capacity, content))
            packet.data = self._maybe(buffers[-1].address, 0.97)
            packet.length, packet.capacity = len(content), capacity
            packet.endpoint.family = self.rng.choice((4, 4, 4, 6, 0, 5, 255))
            packet.endpoint.port = self.rng.getrandbits(16)
            packet.verdict = packet.drop = 0xFFFFFFFF
        return array, buffers

    def _seal_oddly(self, handle: c_void_p) -> None:
        count = self.rng.choice((0, 1, 2, 8))
        inner = [
            self._inner(self.rng.choice((0, 1, 19, 20, 40, 1420, 1421, 9000))) for _ in range(count)
        ]
        sources, kept = self._packets(count, inner)
        outs, buffers = self._packets(count, [b""] * count)
        target, now = self._maybe(handle, 0.97), self._maybe(byref(self.now), 0.97)
        if self.rng.random() < 0.5:
            status = self.core.pywg_interface_seal(target, now, sources, outs, count)
        else:
            peers, why = self._peers(count), self._diagnostic()
            status = self.core.pywg_interface_seal_batch(
                target, now, sources, outs, peers.numbers, count, byref(why)
            )
            self._judge_batch(status, peers, why)
        self._expect(status, {0, INVALID, SMALL})
        for buffer, packet in zip(buffers, outs, strict=False):
            buffer.expect_whole("seal")
            if status == 0 and packet.verdict not in (0, 1, 2):
                raise Mismatch(f"seal gives verdict {packet.verdict}")
            if status == 0 and packet.verdict == 1:
                self.wire.append(buffer.memory.raw[: packet.length])
        for buffer in kept:
            buffer.expect_whole("seal, in what it reads,")

    def _inner(self, length: int) -> bytes:
        packet = bytearray(self.rng.randbytes(length))
        if length >= 20 and self.rng.random() < 0.8:
            packet[0], packet[2:4] = 0x45, min(length, 65535).to_bytes(2, "big")
            packet[12:16] = packet[16:20] = bytes([10, 0, 0, self.rng.choice((1, 2))])
        return bytes(packet)

    def _receive_oddly(self, handle: c_void_p) -> None:
        count = self.rng.choice((0, 1, 2, 8))
        batch, buffers = self._packets(count, [self._datagram() for _ in range(count)])
        target, now = self._maybe(handle, 0.97), self._maybe(byref(self.now), 0.97)
        packets, load = self._maybe(batch, 0.97), self.rng.choice((0, 0, 1, 0xFFFFFFFF))
        if self.rng.random() < 0.5:
            status = self.core.pywg_interface_receive(target, now, packets, count, load)
        else:
            for packet in batch:
                packet.capacity -= min(packet.capacity, self.rng.choice((0, 0, 0, 1, 1500)))
            peers, why = self._peers(count), self._diagnostic()
            status = self.core.pywg_interface_receive_batch(
                target, now, packets, peers.numbers, count, load, byref(why)
            )
            self._judge_batch(status, peers, why)
        self._expect(status, {0, INVALID})
        for buffer, packet in zip(buffers, batch, strict=False):
            buffer.expect_whole("receive")
            if status == 0 and packet.verdict not in (0, 3, 4, 5):
                raise Mismatch(f"receive gives verdict {packet.verdict}")
            if status == 0 and packet.verdict == 3:
                at = packet.data - buffer.address
                if not 0 <= at <= at + packet.length <= buffer.size:
                    raise Mismatch("a delivered packet lies outside of its bytes")

    def _datagram(self) -> bytes:
        if not self.wire or self.rng.random() < 0.3:
            head = bytes([self.rng.randrange(6), 0, 0, 0])
            return head + self.rng.randbytes(self.rng.choice((0, 12, 28, 60, 88, 144, 1400)))
        datagram = bytearray(self.rng.choice(self.wire[-20:]))
        if datagram and self.rng.random() < 0.3:
            datagram[self.rng.randrange(len(datagram))] ^= 1 << self.rng.randrange(8)
        return bytes(datagram)

    def _poll_oddly(self, handle: c_void_p) -> None:
        count = self.rng.choice((0, 1, 4))
        batch, buffers = self._packets(count, [b""] * count)
        written = c_size_t(99)
        now, told = self._maybe(byref(self.now)), self._maybe(byref(written))
        if self.rng.random() < 0.5:
            status = self.core.pywg_interface_poll(handle, now, batch, count, told)
        else:
            peers, why = self._peers(count), self._diagnostic()
            status = self.core.pywg_interface_poll_batch(
                handle, now, batch, peers.numbers, count, told, byref(why)
            )
            self._judge_batch(status, peers, why)
        self._expect(status, {0, INVALID, SMALL})
        for buffer in buffers:
            buffer.expect_whole("poll")
        if status == 0:
            if written.value > count:
                raise Mismatch(f"poll wrote {written.value} of {count}")
            for buffer, packet in list(zip(buffers, batch, strict=False))[: written.value]:
                self.wire.append(buffer.memory.raw[: packet.length])

    def _peers(self, count: int) -> Peers:
        return Peers(count, is_asked_for=self.rng.random() < 0.8)

    def _judge_batch(self, status: int, peers: Peers, why: abi.pywg_diagnostic) -> None:
        self._judge(status, why)
        peers.buffer.expect_whole("numbers of peers")

    def _handle_oddly(self, handle: c_void_p) -> None:
        """A handle that was closed, and numbers that are none."""
        closed = self._open()
        self.core.pywg_interface_close(closed)
        near = (handle.value or 0) + self.rng.choice((1, -1, 1 << 20, 1 << 21, 1 << 40))
        number = self.rng.choice((near, self.rng.getrandbits(64), self.rng.getrandbits(21)))
        others = {each.value for each in self.handles}
        for odd in (closed.value, number):
            if odd in others:
                continue
            status = self.core.pywg_interface_expire(odd, byref(self.now))
            wanted = {abi.PYWG_CLOSED} if odd == closed.value else {INVALID, abi.PYWG_CLOSED}
            self._expect(status, wanted)
            self.core.pywg_interface_close(odd)
        self._expect(self.core.pywg_device_stop(handle), {INVALID})

    def _key_oddly(self, _: c_void_p) -> None:
        private, public = Buffer(32), Buffer(32)
        status = self.core.pywg_key_generate(self._maybe(private.address))
        self._expect(status, {0, INVALID})
        status = self.core.pywg_key_public(private.address, self._maybe(public.address))
        self._expect(status, {0, INVALID})
        private.expect_whole("key_generate")
        public.expect_whole("key_public")

    def _peer_oddly(self, handle: c_void_p) -> None:
        key, number = Buffer(32, bytes([0x5D] * 32)), c_uint64(self.rng.getrandbits(64))
        some = self.rng.choice((0, 1, 1 << 32, 2 << 32, number.value, 2**64 - 1))
        status = self.core.pywg_interface_peer_key(handle, some, self._maybe(key.address))
        self._expect(status, {0, INVALID, abi.PYWG_NOT_FOUND})
        key.expect_whole("peer_key")
        found = self.core.pywg_interface_peer_number(handle, key.address, byref(number))
        self._expect(found, {0, abi.PYWG_NOT_FOUND})
        if (found == 0) != (number.value != 0):
            raise Mismatch(f"peer_number answers {found} and {number.value}")

    def _expire_oddly(self, handle: c_void_p) -> None:
        self.now.boot_ns += self.rng.choice((0, 1, 10**9, 200 * 10**9, 10**12))
        if self.rng.random() < 0.02:
            self.now.boot_ns = 2**64 - 1 - self.rng.getrandbits(20)
        self.now.unix_ns = self.rng.choice((self.now.unix_ns, 0, 2**64 - 1))
        status = self.core.pywg_interface_expire(handle, self._maybe(byref(self.now)))
        self._expect(status, {0, INVALID})

    def _deadline_oddly(self, handle: c_void_p) -> None:
        status = self.core.pywg_interface_deadline(
            self._maybe(handle), self._maybe(byref(c_uint64()))
        )
        self._expect(status, {0, INVALID})

    def _dropped_oddly(self, handle: c_void_p) -> None:
        reason = self.rng.choice((0, 5, 23, 24, 25, 255, 256, 2**32 - 1))
        status = self.core.pywg_interface_dropped(
            self._maybe(handle), reason, self._maybe(byref(c_uint64()))
        )
        self._expect(status, {0, INVALID, abi.PYWG_NOT_FOUND})
        if status == 0 and self.core.pywg_drop_name(reason) is None:
            raise Mismatch(f"reason {reason} is counted and has no name")

    def _names_oddly(self, _: c_void_p) -> None:
        number = self.rng.choice((0, -1, -11, -12, 1, 2**31 - 1, -(2**31)))
        if not self.core.pywg_status_name(number).startswith(b"PYWG_"):
            raise Mismatch(f"status {number} has no name")
        self.core.pywg_cipher_select(self.rng.choice((None, b"", b"baseline", b"x" * 999)))
        self.core.pywg_cipher_path()

    def _traffic_oddly(self, _: c_void_p) -> None:
        """Everything said so far to both, in order: now and then they shake hands."""
        for own, handle in enumerate(self.handles):
            self._configure(handle, own)
        for each in 3 * self.handles:
            self._poll_oddly(each)
            self._receive_oddly(each)
            self._seal_oddly(each)

    def _device_oddly(self, _: c_void_p) -> None:
        """What is refused before anything is made."""
        usual = sizeof(abi.pywg_device_options)
        options = abi.pywg_device_options(
            size=self.rng.choice((usual, 0, usual - 1)),
            name=self.rng.choice((None, b"", b"a/b", b"x" * 16, b"x" * 5000, b"..", b" ")),
            tun_fd=-1,
            uapi_fd=-1,
            log_fd=-1,
            mtu=self.rng.choice((0, 1, 65536, 2**32 - 1)),
            threads=self.rng.choice((0, 1, 65, 2**32 - 1)),
            log_level=self.rng.choice((0, 3, 2**32 - 1)),
            memory_limit=self.rng.choice((0, 1, 2**64 - 1)),
            no_uapi=1,
        )
        handle, diagnostic = c_void_p(), self._diagnostic()
        if options.name is None or not options.name:
            options.log_level = 3  # an empty name is a name the kernel picks: refuse it otherwise
        status = self.core.pywg_device_open(
            self._maybe(byref(options)), self._maybe(byref(handle)), byref(diagnostic)
        )
        if status == 0:
            self.core.pywg_device_close(handle)
            raise Mismatch("a device with such options is opened")
        self._judge(status, diagnostic)
        self.core.pywg_device_close(None)


def iterate(rng: random.Random, fault: str = "none") -> None:
    calls = Calls(rng, fault)
    for _ in range(rng.randint(1, 40)):
        calls.step()
    calls.close()


def run_child(
    seed: int,
    *,
    fault: str = "none",
    seconds: float | None = None,
    iterations: int | None = None,
    first: int = 0,
    command: str = "",
) -> int:
    """Runs in a child; its death is told with the iteration that it died of."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        faulthandler.disable()  # its tale of our own frames says nothing
        number = first

        def one(rng: random.Random) -> None:
            nonlocal number
            os.write(writing, number.to_bytes(8, "little"))
            number += 1
            iterate(rng, fault)

        code = 70
        try:
            code = run(
                "abi",
                one,
                seed=seed,
                seconds=seconds,
                iterations=iterations,
                first=first,
                command=command,
            )
        finally:
            os._exit(code)
    os.close(writing)
    last = first
    while data := os.read(reading, 1 << 16):
        last = int.from_bytes(data[-8:], "little")
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        print(f"crash: signal {os.WTERMSIG(status)}")
        print(f"replay: {command} --seed {seed} --iteration {last}", flush=True)
        return 1
    return os.WEXITSTATUS(status)
