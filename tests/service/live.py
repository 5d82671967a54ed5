"""The application on a real socket, for clients that are not the test client."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from service.client import Client


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address at which uvicorn serves `app` meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(address) as client:
            client.wait_until_up(30)
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join()
