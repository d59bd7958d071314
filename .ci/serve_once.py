"""Serves one request with the installed wheel over a real socket; run it outside the checkout."""

import http.client
import socket
import sys
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import dedup_middleware

place = Path(dedup_middleware.__file__).resolve()
assert place.is_relative_to(Path(sys.prefix).resolve()), f"imported from {place}, not from the wheel"


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


app = Starlette(routes=[Route("/hello", hello)])
app.add_middleware(dedup_middleware.DedupMiddleware)

with socket.create_server(("127.0.0.1", 0)) as listener:
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    client = http.client.HTTPConnection(*listener.getsockname(), timeout=20)
    client.request("GET", "/hello")
    response = client.getresponse()
    body = response.read()
    client.close()
    server.should_exit = True
    thread.join(20)

assert not thread.is_alive(), "the server did not stop"
assert (response.status, body) == (200, b"hello"), (response.status, body)
print(f"{dedup_middleware.__version__} from the wheel answered {response.status}", response.getheaders())
