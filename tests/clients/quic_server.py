"""A QUIC server that completes handshakes: HOST PORT CERTIFICATE KEY. Says when it listens."""

import asyncio
import sys

from aioquic.asyncio import serve
from aioquic.quic.configuration import QuicConfiguration


async def main(host: str, port: int, certificate: str, key: str) -> None:
    configuration = QuicConfiguration(alpn_protocols=["h3"], is_client=False)
    configuration.load_cert_chain(certificate, key)
    await serve(host, port, configuration=configuration)
    print("listens", flush=True)
    await asyncio.Future()


host, port, certificate, key = sys.argv[1:]
asyncio.run(main(host, int(port), certificate, key))
