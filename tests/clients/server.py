"""Starts `collegium serve` on a free port and stops it; standard library only.

In: the binary and its arguments.  Out: the base URL once the server is ready, as a context manager.  What the server
wrote goes to a file, and is shown when something fails.
"""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serve(binary, *args, home=None):
    """Yields (base URL, process, seconds from start to ready)."""
    with contextlib.ExitStack() as stack:
        home = home or stack.enter_context(tempfile.TemporaryDirectory())
        os.makedirs(home, exist_ok=True)
        log = stack.enter_context(tempfile.TemporaryFile("w+"))
        base = f"http://127.0.0.1:{free_port()}"
        begun = time.monotonic()
        process = subprocess.Popen(
            [binary, "serve", "--listen", base.removeprefix("http://"), "--home", home, *args],
            stdout=log, stderr=subprocess.STDOUT, cwd=home,
        )  # fmt: skip
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{base}/readyz", timeout=1).read()
                    break
                except (OSError, urllib.error.URLError):
                    if process.poll() is not None or time.monotonic() - begun > 60:
                        raise RuntimeError("the server did not become ready") from None
                    time.sleep(0.005)
            yield base, process, time.monotonic() - begun
        except BaseException:
            log.seek(0)
            print(log.read()[-4000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def post(base, path, body, headers=None):
    """(headers, JSON) of an answer."""
    request = urllib.request.Request(
        base + path, json.dumps(body).encode(), {"content-type": "application/json", **(headers or {})}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return dict(answer.headers), json.load(answer)


def metrics(base):
    """Metric line (name with labels) -> value."""
    with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")}


def binary():
    """The binary under test: $COLLEGIUM, else the release build of this checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    return os.environ.get("COLLEGIUM", os.path.join(here, "..", "..", "target", "release", "collegium"))
