"""Clients over HTTP: the same requests to our server and to llama-server; standard library only.

In: a program and a model; processors are those of this process.  Out: a way to ask one question, as a context manager
that ends the server; and tokens a second of many clients that ask at once.  Every client has a prompt of its own, so
that nothing is read twice.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))
from server import free_port, post, serve


@contextlib.contextmanager
def server_process(binary, path):
    """Yields (how to ask, the process)."""
    # The server runs in a folder of its own.
    with serve(os.path.abspath(binary), "--parent", os.path.abspath(path)) as (base, process, _):
        yield lambda prompt, tokens: ask(base, prompt, tokens, {"model": "generalist"}), process


@contextlib.contextmanager
def collegium(binary, path):
    with server_process(binary, path) as (ask, _):
        yield ask


def anonymous_bytes(pid):
    """Memory of a process that is no file's."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))


@contextlib.contextmanager
def llama_server(peer, path, threads, slots):
    base = f"http://127.0.0.1:{free_port()}"
    port, context = base.rsplit(":", 1)[1], str(slots * 256)
    command = [os.path.join(peer, "bin", "llama-server"), "-m", path, "-t", str(threads), "-np", str(slots), "-cb"]
    with tempfile.TemporaryFile("w+") as log:
        command += ["-c", context, "--host", "127.0.0.1", "--port", port, "--cache-ram", "0", "--no-ui"]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not ready(base):
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(f"llama-server ended\n{log.read()[-2000:]}")
                time.sleep(0.1)
            yield lambda prompt, tokens: ask(base, prompt, tokens, {"cache_prompt": False})
        finally:
            process.terminate()
            process.wait()


def ready(base):
    try:
        return urllib.request.urlopen(f"{base}/health", timeout=1).status == 200
    except OSError:
        return False


def ask(base, prompt, tokens, more):
    """Tokens of the answer."""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **more}
    made = post(base, "/v1/completions", body)[1]["usage"]["completion_tokens"]
    if made != tokens:
        raise RuntimeError(f"{made} tokens came where {tokens} were asked for")
    return made


def tokens_per_s(ask, clients, tokens):
    """From the first request to the last answer; a short round warms up."""
    together(ask, clients, 4)
    begun = time.perf_counter()
    made = together(ask, clients, tokens)
    return made / (time.perf_counter() - begun)


def together(ask, clients, tokens):
    """All clients ask at once; tokens of all answers."""
    made = []

    def client(i):
        made.append(ask(f"Chapter {i}, part {tokens}:", tokens))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(made) != clients:
        raise RuntimeError(f"{clients - len(made)} of {clients} clients had no answer")
    return sum(made)
