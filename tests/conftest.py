"""What all tests share: a store of their own, whatever server the caller's shell names, and ports for real servers."""

import os
import socket
from collections.abc import Callable

import pytest

os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port that nobody listens on."""

    def find() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return int(listener.getsockname()[1])

    return find
