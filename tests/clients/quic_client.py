"""Connects with QUIC, one connection after the other: HOST PORT NAME CONNECTIONS."""

import asyncio
import ssl
import sys

from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration


async def main(host: str, port: int, name: str, connections: int) -> None:
    for _ in range(connections):
        configuration = QuicConfiguration(
            alpn_protocols=["h3"], is_client=True, server_name=name, verify_mode=ssl.CERT_NONE
        )
        async with connect(host, port, configuration=configuration) as connection:
            await connection.ping()


host, port, name, connections = sys.argv[1:]
asyncio.run(asyncio.wait_for(main(host, int(port), name, int(connections)), timeout=30))
