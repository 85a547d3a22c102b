import asyncio
import ssl

import pywg


async def secured(tunnel: pywg.Tunnel) -> str:
    context = ssl.create_default_context()
    reader, writer = await tunnel.open_connection("intranet.example", 443, ssl=context)
    writer.write(b"GET / HTTP/1.0\r\nHost: intranet.example\r\n\r\n")
    status = await reader.readline()
    writer.close()
    return status.decode().strip()


with pywg.Tunnel("work.conf", wait=10) as tunnel:  # no root, and nothing of the host is changed
    with tunnel.create_connection(("intranet.example", 80), timeout=10) as stream:
        stream.sendall(b"GET / HTTP/1.0\r\nHost: intranet.example\r\n\r\n")
        print(stream.makefile().readline().strip())
    print(asyncio.run(secured(tunnel)))
    listener = tunnel.listen(("", 8080))  # peers reach it at the tunnel's address
    print(listener.getsockname()[1])
    listener.close()
