from ipaddress import ip_network

import pywg


def interface(own: pywg.PrivateKey, peer: pywg.PrivateKey, inner: str, port: int) -> pywg.Interface:
    section = pywg.PeerSection(
        peer.public,
        allowed_ips=(pywg.AllowedIP(ip_network(inner)),),
        endpoint=pywg.Endpoint("192.0.2.1", port),
    )
    return pywg.Interface(pywg.Config(pywg.InterfaceSection(own), (section,)))


ours, theirs = pywg.PrivateKey.generate(), pywg.PrivateKey.generate()
a = interface(ours, theirs, "10.0.0.2/32", 2)
b = interface(theirs, ours, "10.0.0.1/32", 1)
addresses = {id(a): ("192.0.2.1", 1), id(b): ("192.0.2.1", 2)}  # where each is seen to be

packet = bytes.fromhex("4500001c 00000000 40110000 0a000001 0a000002 00070007 00080000")
print(a.seal([packet])[0].verdict.name)  # STAGED: there is no session yet

here, there = a, b
for _ in range(4):  # initiation, response, data
    datagrams = [(sent.data, addresses[id(here)]) for sent in here.poll()]
    for result in there.receive(datagrams):
        print(result.verdict.name, result.data == packet)
    here, there = there, here
a.close()
b.close()
