"""The protocol over UDP in slots that are used again and again, both ends in one program."""

import socket
import time

import pywg


def interface(own: pywg.PrivateKey, peer: pywg.PrivateKey, inner: str, port: int) -> pywg.Interface:
    return pywg.Interface(
        f"private_key={own.to_hex()}\npublic_key={peer.public.to_hex()}\n"
        f"allowed_ip={inner}/32\nendpoint=127.0.0.1:{port}\n"
    )


# excerpt begins
def send(interface: pywg.Interface, udp: socket.socket, slots: pywg.Batch) -> None:
    for datagram, address in slots.sealed():
        udp.sendto(datagram, address)
    while interface.poll_into(slots):  # what the protocol itself wants sent
        for datagram, address in slots.sealed():
            udp.sendto(datagram, address)


def receive(interface: pywg.Interface, udp: socket.socket, slots: pywg.Batch) -> list[bytes]:
    lengths, sources = [], []
    for slot in slots.datagrams:
        try:
            length, source = udp.recvfrom_into(slot)
        except BlockingIOError:
            break
        lengths.append(length)
        sources.append(source)
    interface.open_into(slots, lengths, sources)
    return [bytes(packet) for packet in slots.opened()]  # or write them where they lie


# excerpt ends


def main() -> None:
    ours, theirs = pywg.PrivateKey.generate(), pywg.PrivateKey.generate()
    here, there = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for udp in (here, there):
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
    a = interface(ours, theirs, "10.0.0.2", there.getsockname()[1])
    b = interface(theirs, ours, "10.0.0.1", here.getsockname()[1])
    slots = pywg.Batch(16)
    packet = bytes.fromhex("4500001c 00000000 40110000 0a000001 0a000002 00070007 00080000")
    lengths = []
    for slot in slots.packets:
        slot[: len(packet)] = packet  # in earnest: os.readv(tun, [slot])
        lengths.append(len(packet))
    a.seal_into(slots, lengths)
    send(a, here, slots)
    arrived: list[bytes] = []
    while len(arrived) < 16:
        arrived += receive(b, there, slots)
        send(b, there, slots)
        receive(a, here, slots)
        send(a, here, slots)
        time.sleep(0.001)
    print(len(arrived), "packets,", "as they were sent" if {*arrived} == {packet} else "changed")
    a.close()
    b.close()


main()
