"""Counts WireGuard messages as they enter or leave a namespace, by nftables: no packet is copied to
us, and a count cannot be missed by being late. A train sent with UDP_SEGMENT counts as one."""

from __future__ import annotations

import json

from tools.lab.namespaces import Namespace

# The first byte of the UDP payload is the message type; a keepalive is a data message without
# content: 16 bytes of header and 16 of tag behind 8 bytes of UDP header.
_MATCHES = {
    "initiation": "meta l4proto udp @th,64,32 0x01000000",
    "response": "meta l4proto udp @th,64,32 0x02000000",
    "cookie_reply": "meta l4proto udp @th,64,32 0x03000000",
    "data": "meta l4proto udp @th,64,32 0x04000000 udp length != 40",
    "keepalive": "meta l4proto udp @th,64,32 0x04000000 udp length 40",
}


class Wire:
    """Counters of one namespace. Name further matches in nft's words to count more."""

    def __init__(self, namespace: Namespace, **matches: str) -> None:
        self.namespace = namespace
        self.matches = matches
        rules = "".join(f"counter {name} {{}}\n" for name in self._names())
        for direction in ("input", "output"):
            rules += f"chain {direction} {{ type filter hook {direction} priority 0;\n"
            for kind, match in _MATCHES.items():
                rules += f"{match} counter name {kind}_{direction}\n"
            for name, match in matches.items():
                # What names an interface to come in by is counted on its way in, all else on its
                # way out.
                if ("iifname" in match) == (direction == "input"):
                    rules += f"{match} counter name {name}\n"
            rules += "}\n"
        namespace.nft(f"table inet wire {{\n{rules}}}\n")

    def _names(self) -> list[str]:
        return [f"{kind}_{way}" for kind in _MATCHES for way in ("input", "output")] + list(
            self.matches
        )

    def counts(self) -> dict[str, int]:
        answer = json.loads(
            self.namespace.run("nft", "-j", "list", "counters", "table", "inet", "wire")
        )
        return {
            item["counter"]["name"]: item["counter"]["packets"]
            for item in answer["nftables"]
            if "counter" in item
        }

    def __getitem__(self, name: str) -> int:
        return self.counts()[name]
