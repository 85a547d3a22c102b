"""A whole tunnel in this process, without root: the helper inside, and the device with its UDP
sockets here. What `pywg exec`, `pywg proxy` and a program's own sockets stand on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Self

from pywg.config import Config
from pywg.errors import PywgError
from pywg.host import resolver
from pywg.host.network import Network, port_is_free
from pywg.native.device import Device
from pywg.native.options import LogLevel, Offload
from pywg.plan import build
from pywg.rootless import layout
from pywg.rootless.inside import Inside
from pywg.service.endpoints import Watcher, names_of
from pywg.service.supervisor import Tuning
from pywg.wireguard.status import PeerStatus

#: For what is under way when the last program has ended.
DRAIN_S = 2.0
#: How often the device is asked whether a peer has answered.
_POLL_S = 0.02
# A keepalive brings a handshake; afterwards the peer has none again.
_ASKING_KEEPALIVE_S = 25


class Hosted:
    """A tunnel that runs. ``inside`` makes sockets in it; the two descriptors lead there.

    Raises PywgError: ConfigError for a name without an address, refusal.Refused where this host
    does not allow it. ``finished`` is called, from any thread, when the device has ended.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        tuning: Tuning | None = None,
        *,
        finished: Callable[[], None] | None = None,
    ) -> None:
        self.inside = Inside()
        self.user_namespace = self.network_namespace = -1
        self._device: Device | None = None
        self._watcher: Watcher | None = None
        try:
            self._open(name, config, tuning or Tuning(), finished)
        except BaseException:
            self.close()
            raise

    def _open(
        self, name: str, config: Config, tuning: Tuning, finished: Callable[[], None] | None
    ) -> None:
        _check_port(config)
        numeric = layout.for_device(resolver.resolve_now(config))
        wanted = layout.interface(name, config, choose_mtu(numeric))
        interior = self.inside.make_interface(wanted, layout.routes(config))
        self.user_namespace = interior.user_namespace
        self.network_namespace = interior.network_namespace
        self.resolv_conf = wanted.resolv_conf
        self.notes = (*layout.notes(config), *interior.notes)
        try:
            self._device = Device(
                name,
                tun_fd=interior.tun,
                uapi_socket=False,
                offload_disable=Offload(tuning.offload_disable),
                threads=tuning.threads,
                realtime=tuning.realtime,
                memory_limit=tuning.memory_limit,
                log_level=LogLevel(tuning.log_level),
                log_fd=tuning.log_fd,
            )
        except PywgError:
            os.close(interior.tun)
            raise
        self._device.set(numeric)
        self._device.start(finished)
        self._watcher = Watcher(self._device, names_of(config))
        self._watcher.start()

    @property
    def device(self) -> Device:
        assert self._device is not None  # noqa: S101 - there is one once it is made
        return self._device

    def wait_for_handshake(
        self, seconds: float, interrupted: Callable[[float], bool] | None = None
    ) -> bool:
        """Whether a peer has answered by then; each that has an endpoint is asked. Returns early,
        with False, when ``interrupted(pause)``, which waits so many seconds, says so."""
        pause = interrupted or _sleep
        limit = time.monotonic() + seconds
        asked = [peer for peer in self.device.get().peers if _has_to_be_asked(peer)]
        self._set_keepalive(asked, _ASKING_KEEPALIVE_S)
        try:
            while not any(peer.last_handshake_ns for peer in self.device.get().peers):
                if time.monotonic() >= limit or pause(_POLL_S):
                    return False
            return True
        finally:
            self._set_keepalive(asked, 0)

    def drain(self, limit_s: float = DRAIN_S) -> None:
        """Waits, so long at most, until what programs have sent before they ended is delivered, or
        on its way: by the kernel, and by a first handshake that packets wait for."""
        limit = time.monotonic() + limit_s
        with contextlib.suppress(PywgError):  # helper or device have ended
            while time.monotonic() < limit and self._has_something_left():
                time.sleep(_POLL_S)

    def _has_something_left(self) -> bool:
        left = self.inside.what_is_left()
        if left.queued or left.closing:
            return True
        peers = self.device.get().peers
        waits = any(peer.endpoint is not None for peer in peers)
        return waits and left.sent > 0 and not any(peer.last_handshake_ns for peer in peers)

    def _set_keepalive(self, peers: Sequence[PeerStatus], interval_s: int) -> None:
        for peer in peers:
            self.device.set(
                f"public_key={peer.public_key.to_hex()}\nupdate_only=true\n"
                f"persistent_keepalive_interval={interval_s}\n"
            )

    def close(self) -> None:
        """Ends device and helper; the interface goes with its last descriptor."""
        if self._watcher is not None:
            self._watcher.stop()
        if self._device is not None:
            self._device.close()
        self.inside.close()
        for descriptor in (self.user_namespace, self.network_namespace):
            if descriptor >= 0:
                os.close(descriptor)
        self.user_namespace = self.network_namespace = -1

    def forget(self) -> None:
        """In a forked child: all of it is the parent's."""
        self.inside.forget()
        for descriptor in (self.user_namespace, self.network_namespace):
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unanswered(config: Config, seconds: float) -> str:
    """That no peer has answered, in a line."""
    asked = [peer for peer in config.peers if peer.endpoint is not None]
    who = ", ".join(f"{peer.public_key.short} at {peer.endpoint}" for peer in asked[:3])
    if not asked:
        return f"{config.path}: no handshake within {seconds:g} s, and no peer has an Endpoint"
    return (
        f"{config.path}: no handshake within {seconds:g} s: {who} did not answer (does it know our "
        "key, and does UDP come through to it?)"
    )


def choose_mtu(numeric: Config) -> int:
    """As `pywg up` does."""
    if numeric.interface.mtu is not None:
        return numeric.interface.mtu
    hosts = [peer.endpoint.host for peer in numeric.peers if peer.endpoint is not None]
    with Network() as network:
        return build.inner_mtu(network.path_mtus(hosts), network.default_route_mtu())


def _check_port(config: Config) -> None:
    port = config.interface.listen_port
    if port and not port_is_free(port):
        raise PywgError(
            f"{config.path}: port {port} is taken (leave ListenPort out, or find its owner: "
            "ss -ulpn)"
        )


def _has_to_be_asked(peer: PeerStatus) -> bool:
    return peer.endpoint is not None and not peer.persistent_keepalive


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
