"""What a file means for a tunnel without root: what the helper is asked to make. Pure."""

from __future__ import annotations

from dataclasses import replace

from pywg.config import Config, split_dns
from pywg.plan import build
from pywg.rootless import privacy
from pywg.rootless.messages import MakeInterface

# As core/wire/messages.zig and core/device/train.zig: what a packet takes more on its way, and what
# one UDP_SEGMENT message holds.
_TRANSPORT_OVERHEAD, _PADDING = 32, 16
_TRAIN_BYTES_MAX, _TRAIN_PACKETS_MAX = 65_507, 64


def interface(name: str, config: Config, mtu: int) -> MakeInterface:
    section = config.interface
    return MakeInterface(
        name,
        mtu,
        segments(mtu),
        tuple(map(str, section.addresses)),
        privacy.resolv_conf(
            tuple(map(str, section.dns_servers)), split_dns.searched(section.dns_search)
        ),
    )


def routes(config: Config) -> tuple[str, ...]:
    """Every network of the file, default routes too: there is nothing else that could lead there.
    What no peer has is unreachable."""
    return tuple(map(str, build.routes(config)))


def segments(mtu: int) -> int:
    """How many packets a superpacket may have to fit one train."""
    padded = min(-(-mtu // _PADDING) * _PADDING, mtu)
    return max(1, min(_TRAIN_PACKETS_MAX, _TRAIN_BYTES_MAX // (padded + _TRANSPORT_OVERHEAD)))


def for_device(config: Config) -> Config:
    """Without what would concern the host: nothing here has to be told from the tunnel's own
    datagrams, so they need no mark."""
    return replace(config, interface=replace(config.interface, fwmark=None))


def unused(config: Config) -> tuple[str, ...]:
    """Keys of the file that a tunnel without root does not use, as the file spells them."""
    section = config.interface
    said = {
        "PreUp": section.pre_up,
        "PostUp": section.post_up,
        "PreDown": section.pre_down,
        "PostDown": section.post_down,
        "Peers": section.peers_from,
        "OnPeerUp": section.on_peer_up,
        "OnPeerDown": section.on_peer_down,
        "OnEndpointChange": section.on_endpoint_change,
        "Table": section.table != "auto",
        "FwMark": section.fwmark,
        "SaveConfig": section.save_config,
        "Backend": section.backend,
        "Netns": section.netns,
        "SocketNetns": section.socket_netns,
        "KillSwitch": section.kill_switch not in (None, "off"),
        "Only": section.only,
        "Except": section.excepted,
    }
    return tuple(key for key, value in said.items() if value)


def notes(config: Config) -> tuple[str, ...]:
    """What somebody who knows `pywg up` would not expect, once."""
    found = []
    if ignored := unused(config):
        found.append(f"{config.path}: without root not used: {', '.join(ignored)}")
    if not config.interface.dns_servers:
        found.append(
            f"{config.path}: no DNS, so names are not looked up inside, but those of /etc/hosts"
        )
    elif split_dns.is_split(config.interface.dns_search):
        found.append(f"{config.path}: inside, all names are asked for at the servers of DNS")
    return tuple(found)
