"""Starts and stops the fake Hub on two free ports of this machine."""

import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from tests.servers.hub.app import create_app
from tests.servers.hub.context import Hub, LoggedRequest
from tests.servers.hub.faults import Faults
from tests.servers.hub.store import HubStore

WRITE_TOKEN = "hf_test_write_token_not_a_secret"
READ_TOKEN = "hf_test_read_token_not_a_secret"
START_SECONDS = 60.0


class HubServer:
    """A Hub for tests, as a context manager.

    Attributes:
        endpoint: origin to give to the client as `HF_ENDPOINT` or `HfApi(endpoint=...)`.
        write_token: token of the user who owns repositories here.
        read_token: token of the same user that may not write.
        faults: what should go wrong next.
        store: the repositories themselves, to look into.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        user: str = "tester",
        organizations: tuple[str, ...] = ("test-lab",),
        page_size: int = 1000,
    ) -> None:
        self.write_token = WRITE_TOKEN
        self.read_token = READ_TOKEN
        self._root = root
        self._resets = 0
        self._sockets = [_listen(port), _listen(0)]
        self.endpoint = f"http://127.0.0.1:{self._sockets[0].getsockname()[1]}"
        self._hub = Hub(
            store=HubStore(root),
            endpoint=self.endpoint,
            cdn=f"http://localhost:{self._sockets[1].getsockname()[1]}",
            user=user,
            organizations=organizations,
            tokens={WRITE_TOKEN: "write", READ_TOKEN: "read"},
            page_size=page_size,
        )
        config = uvicorn.Config(
            create_app(self._hub),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=600,  # a client that comes back after a pause finds its connection open
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=(self._sockets,), daemon=True)

    @property
    def faults(self) -> Faults:
        """What should go wrong next."""
        return self._hub.faults

    def take_in_parts(self, size: int | None) -> None:
        """Receives objects larger than `size` bytes in parts from now on; None ends that."""
        self._hub.part_size = size

    def speak_xet(self, on: bool = True) -> None:
        """Offers Xet storage from now on, or no longer; clients without Xet go on as before."""
        self._hub.xet = on

    @property
    def requests(self) -> list[LoggedRequest]:
        """All requests so far, in the order in which they were answered."""
        return self._hub.requests

    @property
    def store(self) -> HubStore:
        """The repositories, for tests that look behind the API; read only while requests run."""
        return self._hub.store

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a client in a subprocess; the client reads them when it is imported, so not later."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.write_token,
            "HF_HOME": str(self._root / "hf-home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_XET_CACHE": str(self._root / f"xet-{self._resets}"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def __enter__(self) -> Self:
        """Starts serving; returns when the ports answer."""
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError(f"the fake Hub did not start within {START_SECONDS:.0f} s at {self.endpoint}")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops serving; requests under way are not waited for."""
        self._server.force_exit = True
        self._server.should_exit = True
        self._thread.join(START_SECONDS)
        for listener in self._sockets:
            listener.close()

    def reset(self) -> None:
        """Forgets repositories, faults and requests, so that tests can share a server; whole files stay.

        Requests that a client gave up end before: they must not land in the next test.
        """
        self.faults.clear()
        deadline = time.monotonic() + START_SECONDS
        while self._hub.under_way and time.monotonic() < deadline:
            time.sleep(0.01)
        self.store.repositories.clear()
        self.store.collections.clear()
        self.requests.clear()
        self.take_in_parts(None)
        self.speak_xet(False)
        # Blocks go with the memory of the clients that sent them: neither is of use without the other.
        self.store.objects.forget_xorbs()
        self._resets += 1

    def wait(self) -> None:
        """Serves until the thread ends or the caller is interrupted."""
        self._thread.join()


def _listen(port: int) -> socket.socket:
    """A listening socket of this machine only; port 0 takes a free one, so tests can run side by side."""
    # Only with its protocol named does asyncio send small answers at once; else each costs 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener
