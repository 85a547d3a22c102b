"""A key in each wrong place: no message of the command line, the library, the core or pywgd repeats
it."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pywg import cli
from pywg.config import parse
from pywg.config.grammar import KEYS
from pywg.errors import DeviceError, PywgError, hide_keys
from pywg.keys import PrivateKey
from pywg.native import library
from pywg.native.interface import Interface
from pywg.plan import steps
from pywg.tunnel import trace
from pywg.wireguard import uapi

KEY = PrivateKey(bytes(range(200, 232))).to_base64()
HEX = PrivateKey(bytes(range(200, 232))).to_hex()
WHOLE = [KEY, HEX]
# What a message may repeat leaves 24 characters of a key, 144 bits, to be guessed.
PART = 20


def parts(key: str) -> set[str]:
    return {key[start : start + PART] for start in range(len(key) - PART + 1)}


def expect_hidden(said: str, key: str) -> None:
    repeated = [part for part in parts(key) if part in said]
    assert not repeated, said


# ---- hide_keys


SOME_PARTS = [KEY[:-1], KEY[:40], KEY[3:]]
AROUND = ["{}", '"{}"', "x={};", "key {} and more"]


@pytest.mark.parametrize(
    ("key", "around"),
    [
        *itertools.product([*WHOLE, *SOME_PARTS, HEX.upper()], AROUND),
        # A part of a key cannot be told from the folders of a path.
        *((key, "/etc/wireguard/{}.conf: no such file") for key in WHOLE),
    ],
)
def test_keys_are_hidden_and_what_is_around_them_stays(key: str, around: str) -> None:
    said = hide_keys(around.format(key))
    expect_hidden(said, key)
    assert len(said) == len(around.format(key))
    assert said.startswith(around.partition("{}")[0])


@pytest.mark.parametrize(
    "text",
    [
        "/home/somebody/projects/wireguard/configuration/wg0",
        "/var/lib/containers/storage/overlay/Merged1/etc/wireguard/wg0.conf: no such file",
        "there are private-key, listen-port, fwmark, peers, preshared-keys, endpoints",
        "user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice",
        "2001:db8:1234:5678:9abc:def0:1234:5678/128 is also on line 12345",
        "3f2a9c4e7b1d",
    ],
)
def test_paths_words_and_addresses_stay(text: str) -> None:
    assert hide_keys(text) == text


def test_every_error_hides_keys_by_itself() -> None:
    for kind in PywgError.__subclasses__():
        if kind.__init__ is PywgError.__init__:
            expect_hidden(str(kind(f"{KEY}: no such file")), KEY)
    expect_hidden(str(DeviceError(f"{KEY}: no", -1, hint=KEY)), KEY)


# ---- the command line


def commands() -> Iterator[tuple[str, click.Command]]:
    for name, (module, _) in cli.COMMANDS.items():
        command = getattr(importlib.import_module(module), name.replace("-", "_"))
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {verb}", inner) for verb, inner in command.commands.items())


def wrong_lines(key: str) -> Iterator[list[str]]:
    yield [key]
    yield ["--" + key]
    yield ["--version=" + key]
    for said, command in commands():
        name = said.split()
        yield [*name, key]
        yield [*name, key, key]
        yield [*name, "no-such", key]
        yield [*name, "--" + key]
        yield [*name, f"--{key}=1", "no-such"]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                option = parameter.opts[0]
                yield [*name, option, key, "no-such"]
                yield [*name, f"{option}={key}", "no-such"]
    for row in KEYS:
        yield ["set", "no-such", row.word, key]
        yield ["set", "no-such", row.word, f"{key},{key}"]
        yield ["set", "no-such", "peer", KEY, row.word, key]
        yield ["set", "no-such", "peer", KEY, row.word, "1", key]
    yield ["set", "no-such", "peer", key, "private-key", key]
    yield ["set", "no-such", key, key]
    for verb in ("setconf", "addconf", "syncconf"):
        yield [verb, "no-such", key]
    yield ["show", "all", key]
    yield ["up", f"{key}.conf"]
    yield ["up", f"./{key}.conf"]


@pytest.mark.parametrize("key", WHOLE, ids=["base64", "hex"])
def test_no_command_repeats_a_key(
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", open(os.devnull, encoding="utf-8"))  # noqa: SIM115
    count = 0
    for line in wrong_lines(key):
        code = cli.main(line)
        said = capfd.readouterr()
        shown = (
            said.err if line[0] in ("install-units", "completion", "man") else said.out + said.err
        )
        expect_hidden(shown, key)
        assert code != 0 or not said.err, line
        count += 1
    assert count > 200


# ---- files


def wrong_files(key: str) -> Iterator[str]:
    yield key
    yield f"[{key}]"
    yield f"[Interface]\n{key}"
    yield f"[Interface]\n{key} = 1"
    yield f"[Interface]\nPrivateKey = {key} {key}"
    for header in ("[Interface]", f"[Peer]\nPublicKey = {KEY}"):
        for row in KEYS:
            for value in (key, f"{key}, {key}", f"1 {key}", f"{key}:51820", f"{key}/32"):
                yield f"{header}\n{row.name} = {value}"
                yield f"{header}\n#!pywg {row.name} = {value}"


@pytest.mark.parametrize("key", WHOLE, ids=["base64", "hex"])
def test_no_error_of_a_file_repeats_a_key(key: str) -> None:
    refused = 0
    for text in wrong_files(key):
        try:
            config = parse(text, "wg0.conf")
        except PywgError as error:
            refused += 1
            pictures: list[str] = getattr(error, "pictures", list)()
            expect_hidden("\n".join([str(error), *pictures]), key)
        else:
            expect_hidden("\n".join(hide_keys(str(warning)) for warning in config.warnings), key)
    assert refused > 100


# ---- the library and the core


@pytest.mark.parametrize("key", WHOLE, ids=["base64", "hex"])
def test_no_error_of_the_core_repeats_a_key(key: str) -> None:
    names = ["private_key", "listen_port", "fwmark", "replace_peers", "public_key", "allowed_ip"]
    names += ["preshared_key", "endpoint", "persistent_keepalive_interval", "protocol_version"]
    names += ["remove", "update_only", "pywg_bind_device", "pywg_bind_address", key]
    with Interface() as interface:
        for name in names:
            for value in (f"{key}{key}", f"{key}:1", f"{key}/32", f"1{key}"):
                for before in ("", f"public_key={HEX}\n"):
                    with pytest.raises(DeviceError) as caught:
                        interface.set(f"{before}{name}={value}\n")
                    expect_hidden(str(caught.value), key)
    with pytest.raises(PywgError) as told:
        uapi.parse_get(f"private_key={key}x\n")
    expect_hidden(str(told.value), key)


@pytest.mark.parametrize("key", WHOLE, ids=["base64", "hex"])
def test_pywgd_repeats_no_key(key: str) -> None:
    program = library.find().parent / "pywgd"
    options = ["--threads", "--priority", "--memory-limit", "--no-offload"]
    lines = [[key], ["x", key], ["--" + key], *([option, key] for option in options)]
    lines += [[f"{option}={key}", "x"] for option in options]
    for line in lines:
        told = subprocess.run([program, *line], capture_output=True, text=True, check=False)
        assert told.returncode != 0
        expect_hidden(told.stdout + told.stderr, key)
    for variable in ("WG_TUN_FD", "WG_UAPI_FD", "PYWG_NO_OFFLOAD", "PYWG_THREADS", "PYWG_PRIORITY"):
        told = subprocess.run(
            [program, "no-such"],
            env={**os.environ, variable: key},
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode != 0
        expect_hidden(told.stdout + told.stderr, key)


# ---- the trace of a tunnel


def test_a_hook_with_a_key_in_its_line_is_traced_without_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = steps.RunHook("wg0", f"wg set wg0 peer x preshared-key <(echo {KEY})")
    with caplog.at_level("INFO", "pywg.tunnel"):
        trace.tell(trace.Logged(), hook)
        trace.Logged().warn(KEY)
    assert "preshared-key" in caplog.text
    expect_hidden(caplog.text, KEY)
