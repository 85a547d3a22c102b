"""wg-quick files made up by hypothesis, by their grammar or as raw text, for pywg/config.

No error but ConfigError; none that holds a key; a file that is accepted is written again to the
byte, and says what a second, naive reading finds in it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from socket import getservbyname

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st

from pywg.config import grammar, parse
from pywg.config.document import rewrite
from pywg.config.model import Config
from pywg.config.strip import strip
from pywg.errors import ConfigError
from tools.fuzz.target import Mismatch

Parse = Callable[[str], Config]
Rewrite = Callable[[str, Config], str]

# ---- what is judged ------------------------------------------------------------------------------


def judge(text: str, read: Parse = parse, write: Rewrite = rewrite) -> None:
    try:
        config = read(text)
    except ConfigError as error:
        _expect_no_key(text, "\n".join([str(error), *error.pictures()]))
        return
    except Exception as error:
        raise Mismatch(f"{type(error).__name__}: {error} for {text!r}") from error
    _expect_no_key(text, repr(config) + "\n".join(map(str, config.warnings)), secret_only=True)
    # Without an [Interface] one is put in.
    if (
        re.search(r"(?im)^\s*\[\s*interface", text.removeprefix("\ufeff"))
        and write(text, config) != text
    ):
        raise Mismatch(f"what did not change is written another way: {text!r}")
    _expect_reading(text, config)
    stripped = strip(text)
    again = read(stripped)
    if again.peers != config.peers or again.interface.private_key != config.interface.private_key:
        raise Mismatch(f"wg would read something else after strip: {text!r}")


def _expect_no_key(text: str, said: str, secret_only: bool = False) -> None:
    """Of what lies in the text as a secret, nothing long enough to matter is said."""
    pattern = r"(?im)^\s*(?:PrivateKey|PresharedKey)\s*=\s*([A-Za-z0-9+/]{40,}=*)"
    if not secret_only:
        pattern = r"()([A-Za-z0-9+/]{43}=)"
    for found in re.findall(pattern, text):
        key = found if isinstance(found, str) else found[-1]
        is_public = re.search(rf"(?im)^\s*PublicKey\s*=\s*{re.escape(key)}", text) is not None
        if key[:24] in said and not (secret_only and is_public):
            raise Mismatch(f"a key is told: {said!r}")


def _expect_reading(text: str, config: Config) -> None:
    """The lines of wg(8), read with a split and nothing else."""
    ports, private, public, allowed = None, None, [], 0
    for line in text.removeprefix("\ufeff").split("\n"):
        key, separator, value = line.partition("\0")[0].partition("#")[0].partition("=")
        key, value = (re.sub(r"[ \t\n\v\f\r]", "", part) for part in (key.lower(), value))
        if not separator:
            continue
        if key == "listenport":
            ports = int(value) if value.lstrip("+").isdigit() else getservbyname(value, "udp")
        elif key == "privatekey":
            private = value
        elif key == "publickey":
            public.append(value)
        elif key == "allowedips":
            allowed += len([item for item in value.split(",") if item])
    interface = config.interface
    if interface.listen_port != ports:
        raise Mismatch(f"listen port {interface.listen_port}, not {ports}: {text!r}")
    own = interface.private_key
    if (own.to_base64() if own is not None else None) != private:
        raise Mismatch(f"another private key is read: {text!r}")
    # A section may name its key twice; the last counts.
    if not {str(peer.public_key) for peer in config.peers} <= set(public):
        raise Mismatch(f"a peer that nobody named: {text!r}")
    if sum(len(peer.allowed_ips) for peer in config.peers) > allowed:
        raise Mismatch(f"allowed IPs that nobody named: {text!r}")


# ---- what is fed ---------------------------------------------------------------------------------

KEYS = st.binary(min_size=32, max_size=32).map(lambda raw: base64.b64encode(raw).decode())
SPACE = st.sampled_from(("", " ", "  ", "\t", " \t"))
ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(
        ("10.0.0.1", "fd00::1", "0.0.0.0", "::", "::ffff:1.2.3.4", "01.2.3.4", "1.2.3")  # noqa: S104
    ),
)
PREFIXES = st.builds(
    lambda address, length: f"{address}/{length}" if length is not None else address,
    ADDRESSES,
    st.one_of(st.none(), st.integers(0, 33), st.sampled_from((64, 128, 129, "024", "-1", ""))),
)
NUMBERS = st.one_of(
    st.integers(-1, 70000).map(str), st.sampled_from(("off", "0x10", "", "1e3", "\u0663", "9" * 40))
)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=30)
SIGNED = st.builds("{}{}".format, st.sampled_from(("", "", "", "+", "-")), PREFIXES)
LISTS = st.lists(SIGNED, max_size=4).map(", ".join)
ENDPOINTS = st.one_of(
    st.builds("{}:{}".format, ADDRESSES, NUMBERS),
    st.builds("[{}]:{}".format, ADDRESSES, NUMBERS),
    st.sampled_from(("vpn.example.com:51820", "[fe80::1%eth0]:1", ":1", "[::1:1", "[]:1")),
)
# A key that is not here gets any words.
VALUES = {
    "PrivateKey": KEYS,
    "ListenPort": st.integers(0, 65535).map(str),
    "FwMark": NUMBERS,
    "Address": LISTS,
    "MTU": NUMBERS,
    "DNS": st.lists(st.one_of(ADDRESSES, st.just("example.com")), max_size=3).map(",".join),
    "Table": NUMBERS,
    "SaveConfig": st.sampled_from(("true", "false", "yes")),
    "BindAddress": st.lists(ADDRESSES, max_size=2).map(" ".join),
    "Backend": st.sampled_from(("kernel", "auto", "x")),
    "PublicKey": KEYS,
    "PresharedKey": KEYS,
    "AllowedIPs": LISTS,
    "Endpoint": ENDPOINTS,
    "PersistentKeepalive": NUMBERS,
    "EndpointFamily": st.sampled_from(("ipv4", "ipv6", "ipv5")),
}


def section(name: str) -> dict[str, st.SearchStrategy[str]]:
    rows = [row for row in grammar.KEYS if row.section == name]
    return {
        f"#!pywg {row.name}" if row.is_extension else row.name: VALUES.get(row.name, WORDS)
        for row in rows
    }


INTERFACE, PEER = section("Interface"), section("Peer")


@st.composite
def lines(draw: st.DrawFn, known: dict[str, st.SearchStrategy[str]]) -> str:
    name = draw(st.sampled_from(list(known)))
    value = draw(known[name] if draw(st.integers(0, 15)) else WORDS)
    spelled = draw(st.sampled_from((name, name, name, name.lower(), name + "x", " " + name)))
    comment = draw(st.sampled_from(("", "", "", " # a comment", "#", "\r")))
    return f"{spelled}{draw(SPACE)}={draw(SPACE)}{value}{comment}"


@st.composite
def files(draw: st.DrawFn) -> str:
    """Mostly right, so that the parser gets to the end of it."""
    made = ["\ufeff" if draw(st.integers(0, 20)) == 0 else ""]
    made += ["[Interface]", *draw(st.lists(lines(INTERFACE), max_size=6))]
    for _ in range(draw(st.integers(0, 3))):
        made += [draw(st.sampled_from(("[Peer]", "[Peer]", "[peer] # x", "[Pear]")))]
        if draw(st.integers(0, 10)):
            made += [f"PublicKey = {draw(KEYS)}"]
        made += draw(st.lists(lines(PEER), max_size=5))
        if draw(st.booleans()):
            made += ["", "# a comment"]
    text = "\n".join(made)
    return text if draw(st.booleans()) else text + "\n"


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(files())
    at = draw(st.integers(0, len(text)))
    cut = draw(st.integers(0, 10))
    return text[:at] + draw(st.text(max_size=5)) + text[at + cut :]


RAW = st.one_of(
    st.text(max_size=300),
    st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", errors="surrogateescape")),
    st.text(
        st.sampled_from("[]=#!pywgPeerInterface \t\r\n\v\f,:/%+-09azAZ\x00\u2028\x85"), max_size=200
    ),
)
TEXTS = st.one_of(files(), files(), damaged(), RAW)


def feed(seed: int, examples: int, read: Parse = parse, write: Rewrite = rewrite) -> Iterator[int]:
    """Examples in portions, so that a caller may stop; a Mismatch is shrunk before it is raised."""
    portion = min(examples, 200)
    for number in range(0, examples, portion):

        @with_seed(seed + number)
        @settings(
            max_examples=portion,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        @given(TEXTS)
        def one(text: str) -> None:
            judge(text, read, write)

        one()
        yield portion
