"""A virtual machine that was cloned or set back sends nothing more by the keys that its double has:
the kernel tells so by a uevent."""

from __future__ import annotations

import socket
import struct

import pytest

from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until
from tools.lab.wire import Wire

pytestmark = pytest.mark.pywgd_only

KOBJECT_UEVENT, KERNEL_GROUP = 15, 1
COPIED = b"change@/devices/platform/vmgenid\0ACTION=change\0NEW_VMGENID=1\0"
OTHER = b"change@/devices/platform/other\0ACTION=change\0SUBSYSTEM=platform\0"
SAID = "all sessions are renewed"


def tell(namespace: Namespace, text: bytes, *, as_kernel: bool) -> None:
    """Root of a namespace may have the kernel say something there (Linux 4.18), or say it itself:
    then it has a sender."""
    message = struct.pack("=IHHII", 16 + len(text), 16, 1, 1, 0) + text if as_kernel else text
    with namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, KOBJECT_UEVENT) as speaker:
        speaker.sendto(message, (0, 0) if as_kernel else (0, KERNEL_GROUP))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_machine_that_is_a_copy_renews_its_sessions_at_once(lab: Lab, threads: int) -> None:
    tunnel = lab.tunnel(environment={"PYWG_THREADS": str(threads)}, log_level="verbose")
    tunnel.session()
    here, there = tunnel.a, tunnel.b
    wire = Wire(here.namespace)
    tell(here.namespace, COPIED, as_kernel=False)
    tell(here.namespace, OTHER, as_kernel=True)
    ping(here.namespace, there.inner4, 1)
    assert SAID not in here.daemon.log()
    assert wire["initiation_output"] == 0
    tell(here.namespace, COPIED, as_kernel=True)
    # Without a packet that would ask for one.
    wait_until(lambda: wire["initiation_output"] == 1, "a new handshake", 20)
    assert here.daemon.log().count(SAID) == 1
    ping(here.namespace, there.inner4, 1)
    ping(there.namespace, here.inner4, 1)
