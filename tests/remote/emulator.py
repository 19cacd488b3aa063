"""A bucket on this machine: the package gcp-storage-emulator, with what it lacks of Google's protocol.

``python emulator.py PORT BUCKET`` serves until it is killed, all in memory. Added are many connections at once, the
conditions on generations that locks and Orbax's storage layer rely on, and the header that tells a reader of them.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.storage import Storage

_ONE_AT_A_TIME = threading.RLock()


class ManyConnections(ThreadingHTTPServer):
    """A server that takes as many connections as a storage layer opens."""

    request_queue_size = 256
    daemon_threads = True


class Router(server.Router):
    """Answers one request at a time, since the emulator's storage is none of threads."""

    def handle(self, method: str) -> None:
        """Read the request before the others are kept waiting."""
        with _ONE_AT_A_TIME:
            super().handle(method)


def generation(storage: Storage, bucket: str, name: str) -> str:
    """The generation of an object, 0 for none."""
    try:
        return str(storage.get_file_obj(bucket, name)["generation"])
    except NotFound:
        return "0"


def conditional(handler: Any) -> Any:
    """Refuse a request whose condition on the generation does not hold."""

    def checked(request: Any, response: Any, storage: Storage, *rest: Any, **options: Any) -> Any:
        asked = request.query.get("ifGenerationMatch")
        name = request.params.get("object_id") or request.query.get("name", [None])[0]
        if asked and name is None:
            name = request.data["meta"]["name"]
        if asked and asked[0] != generation(storage, request.params["bucket_name"], name):
            response.status = HTTPStatus.PRECONDITION_FAILED
            return response.json({"error": {"code": 412, "message": "conditionNotMet"}})
        return handler(request, response, storage, *rest, **options)

    return checked


def with_generation(handler: Any) -> Any:
    """Tell the generation of what is downloaded."""

    def told(request: Any, response: Any, storage: Storage, *rest: Any, **options: Any) -> Any:
        found = generation(storage, request.params["bucket_name"], request.params["object_id"])
        if found != "0":
            response["x-goog-generation"] = found
        return handler(request, response, storage, *rest, **options)

    return told


def patched() -> None:
    """Put the additions into the emulator's table of requests."""
    changed = {
        objects.insert: conditional(objects.insert),
        objects.delete: conditional(objects.delete),
        objects.download: with_generation(conditional(objects.download)),
        objects.get: with_generation(conditional(objects.get)),
    }
    for _, handlers in server.HANDLERS:
        for method, handler in handlers.items():
            handlers[method] = changed.get(handler, handler)
    server.Router = Router


def main(port: int, bucket: str) -> None:
    """Serve a bucket."""
    patched()
    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(bucket, storage)
    with ManyConnections(("127.0.0.1", port), partial(server.RequestHandler, storage)) as served:
        served.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
