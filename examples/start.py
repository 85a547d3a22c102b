import pywg

config = pywg.Config.load("wg0.conf")
with pywg.Device("wg0", config) as device:  # TUN, sockets, timers; addresses and routes are yours
    print(device.get().peers)

packet = bytes.fromhex("4500001c 00000000 40110000 0a000001 0a000002 00070007 00080000")
interface = pywg.Interface(config)  # no sockets, no clock: bytes in, bytes out
print(interface.seal([packet])[0].verdict.name)  # STAGED: it waits for a handshake
