"""Asks over HTTP/3 with aioquic: http3.py HOST PORT CA < requests.json > answers.json

All requests go at once over one connection. A request is {"method", "path", "headers": {}, "body": text or null,
"cancel": bytes after which it is given up, "hold": whether no more of it is taken than the windows let through at
first}. An answer is {"status", "headers": {}, "length", "sha256", "text"}, or
{"reset": code}. When the whole connection ends before: {"closed": code}.
"""
import asyncio
import hashlib
import json
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StreamReset


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.under_way = {}

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            for answer in self.under_way.values():
                self.finish(answer, {"closed": event.error_code, "reason": event.reason_phrase})
        if isinstance(event, StreamReset) and event.stream_id in self.under_way:
            self.finish(self.under_way[event.stream_id], {"reset": event.error_code})
        for told in self.http.handle_event(event):
            answer = self.under_way.get(getattr(told, "stream_id", None))
            if answer is None:
                continue
            if isinstance(told, HeadersReceived) and "status" not in answer["head"]:
                fields = {name.decode(): value.decode() for name, value in told.headers}
                answer["head"] = {"status": int(fields.pop(":status")), "headers": fields}
            if isinstance(told, DataReceived):
                answer["body"] += told.data
                if answer["cancel"] is not None and len(answer["body"]) >= answer["cancel"]:
                    self._quic.stop_stream(told.stream_id, 0x10C)
                    self.finish(answer, {"cancelled": True})
            if told.stream_ended:
                body = bytes(answer["body"])
                text = body.decode() if len(body) < 4096 else None
                told = {"length": len(body), "sha256": hashlib.sha256(body).hexdigest(), "text": text}
                self.finish(answer, {**answer["head"], **told})

    def finish(self, answer, told):
        if not answer["done"].done():
            answer["done"].set_result(told)

    async def ask(self, authority, request):
        stream = self._quic.get_next_available_stream_id()
        fields = [(b":method", request.get("method", "GET").encode()), (b":scheme", b"https"),
                  (b":authority", authority.encode()), (b":path", request["path"].encode())]
        fields += [(name.encode(), value.encode()) for name, value in request.get("headers", {}).items()]
        body = request.get("body")
        answer = {"head": {}, "body": bytearray(), "cancel": request.get("cancel"),
                  "done": asyncio.get_running_loop().create_future()}
        self.under_way[stream] = answer
        self.http.send_headers(stream, fields, end_stream=body is None)
        if body is not None:
            self.http.send_data(stream, body.encode(), end_stream=True)
        self.transmit()
        return await answer["done"]


async def main():
    host, port, ca = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
    configuration.load_verify_locations(ca)
    requests = json.load(sys.stdin)
    if any(request.get("hold") for request in requests):
        # The windows that it opens with are all that it ever gives.
        configuration.max_stream_data = 65536
        QuicConnection._write_stream_limits = lambda *_, **__: None
    try:
        async with connect(host, port, configuration=configuration, create_protocol=Client) as client:
            answers = await asyncio.gather(*(client.ask(f"localhost:{port}", request) for request in requests))
    except ConnectionError as error:
        answers = [{"refused": str(error)}]
    json.dump(answers, sys.stdout)


asyncio.run(asyncio.wait_for(main(), 60))
