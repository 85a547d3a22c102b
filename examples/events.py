import asyncio

import pywg


async def follow(device: pywg.Device) -> None:
    async for event in device.events():  # ends when the device is closed, or removed
        match event:
            case pywg.HandshakeDone(peer):
                print("session:", peer)
            case pywg.EndpointChanged(peer, endpoint):
                print("moved:", peer, endpoint)
            case pywg.PeerStale(peer):
                print("does not answer:", peer)
            case pywg.PortFailed(port):
                print("port in use or forbidden:", port, event.reason)
            case other:
                print(other)


with pywg.Device("wg0", pywg.Config.load("wg0.conf")) as device:
    asyncio.run(follow(device))
