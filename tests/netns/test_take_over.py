"""A new pywgd takes a tunnel over from the running one: the session goes on, nothing under way is lost
for good, and if it fails the running one goes on."""

from __future__ import annotations

import dataclasses
import time

import pytest

from tools.lab import programs
from tools.lab.daemon import Daemon
from tools.lab.lab import Lab, Side, Tunnel, handshake_seconds
from tools.lab.stream import Stream
from tools.lab.traffic import exchange
from tools.lab.wire import Wire

pytestmark = pytest.mark.pywgd_only


def taking() -> programs.Program:
    return dataclasses.replace(programs.subject(), arguments=("-f", "--take-over"))


def take_over(lab: Lab, side: Side, **options: object) -> Daemon:
    """Returns the one that is no more."""
    old = side.daemon
    side.daemon = lab.daemon(taking(), side.namespace, old.name, **options)
    assert old.wait(20) == 0
    assert side.daemon.process.poll() is None, side.daemon.log()
    return old


def test_first(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    wire = Wire(tunnel.a.namespace)
    before = handshake_seconds(tunnel.a, tunnel.b)
    take_over(lab, tunnel.a)
    tunnel.ping()
    print(tunnel.a.daemon.log())
    assert handshake_seconds(tunnel.a, tunnel.b) == before
    assert wire["initiation_output"] + wire["initiation_input"] == 0
