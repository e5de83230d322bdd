"""Runs the fake Hub by hand: `python -m tests.servers.hub --port 0 --root DIR`."""

import argparse
import contextlib
from pathlib import Path

from tests.servers.hub.server import HubServer


def main() -> None:
    """Prints the endpoint on the first line, then lines to paste into a shell; serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port of the endpoint; 0 takes a free one")
    parser.add_argument("--root", type=Path, required=True, help="folder for file contents and HF_HOME")
    arguments = parser.parse_args()
    with HubServer(arguments.root, port=arguments.port) as hub:
        print(hub.endpoint, flush=True)
        for name, value in hub.environment.items():
            print(f"export {name}={value}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            hub.wait()


if __name__ == "__main__":
    main()
