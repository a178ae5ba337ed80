"""An HTTP/3 server that greets: HOST PORT CERTIFICATE KEY. Says when it listens."""

import asyncio
import sys

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent


class Greeter(QuicConnectionProtocol):
    """Answers every request with the same page."""

    http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        for of_http in self.http.handle_event(event) if self.http else []:
            if isinstance(of_http, HeadersReceived):
                self.http.send_headers(of_http.stream_id, [(b":status", b"200")])
                self.http.send_data(of_http.stream_id, b"hello from the edge\n", end_stream=True)
                self.transmit()


async def main(host: str, port: int, certificate: str, key: str) -> None:
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=False)
    configuration.load_cert_chain(certificate, key)
    await serve(host, port, configuration=configuration, create_protocol=Greeter)
    print("listens", flush=True)
    await asyncio.Future()


host, port, certificate, key = sys.argv[1:]
asyncio.run(main(host, int(port), certificate, key))
