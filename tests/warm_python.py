"""A python that begins with other people's packages imported: forked from one that did so once.

A test of what users run needs a process of its own, and importing torch and transformers takes a
process 4 s. What is forked shares those imports and the seed of hashes with its siblings and
nothing else: its folder, environment, files and exit status are its own, and forgetguard is
imported in it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

# What a run on models imports, and what every run of pytest with the plugin does. No plugins of
# pytest: they are imported under its assertion rewriting.
MODELS = (
    "scipy.stats",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
    "peft",
)
PYTEST = ("pytest", "numpy", "pydantic", "yaml", "pygments", "xml.etree.ElementTree")

# Begins in 0.03 s, hands its files, folder and environment over, and ends as the forked one does.
CLIENT = """\
#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
server.sendall(asked)
os._exit(int.from_bytes(server.recv(1) or b"\\x01", "big"))
"""


@cache
def warm_python(*, models: bool = True) -> str:
    """Path of an executable to be called as `sys.executable` is, with `-c` or `-m`.

    Args:
        models: torch, transformers and peft are imported; else what pytest needs alone.
    """
    folder = tempfile.TemporaryDirectory(prefix="warm")
    client, address = Path(folder.name, "python"), str(Path(folder.name, "socket"))
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o700)
    server = subprocess.Popen(
        [sys.executable, __file__, address, str(client), *PYTEST, *(MODELS if models else ())],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"

    def end() -> None:
        server.communicate()  # closes its input
        folder.cleanup()

    atexit.register(end)
    return str(client)


def serve(address: str, modules: Sequence[str]) -> list[str]:
    """Fork for everyone who asks, until the input is closed; there, return the arguments."""
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        with suppress(ChildProcessError):  # so that their CPU time counts as ours
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if sys.stdin in ready:
            os._exit(0)
        asking, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            return _forked(asking)
        asking.close()


def _forked(asking: socket.socket) -> list[str]:
    """The arguments, in a process of its own, which another one waits for."""
    size, files, _, _ = socket.recv_fds(asking, 8, 3)
    whole = asking.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    arguments, folder, environment = json.loads(whole)
    child = os.fork()
    if child:
        for file in (0, 1, 2, *files):
            os.close(file)  # who reads its output waits for its end, not for ours
        _tell(asking, child)
    asking.close()
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return list(arguments)


def _tell(asking: socket.socket, child: int) -> NoReturn:
    """Wait for the child and tell its exit status; end it where nobody waits any more."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            asking.sendall(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
            os._exit(0)
        if select.select([asking], [], [], 0.02)[0]:
            os.kill(child, signal.SIGKILL)
            os._exit(0)


def become(arguments: Sequence[str], executable: str) -> None:
    """Do what `python *arguments` does."""
    sys.executable = executable
    safe_path = arguments[0] == "-P"
    given = [one for one in arguments[safe_path:] if one not in ("-u", "-B")]
    kind, what, rest = given[0][:2], given[0][2:], given[1:]
    if not what:
        what, *rest = rest
    sys.modules["__main__"] = main = ModuleType("__main__")
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [*([] if safe_path else [str(Path.cwd())]), *filter(None, paths)]
    sys.argv = [kind if kind == "-c" else what, *rest]
    if kind == "-c":
        exec(compile(what, "<string>", "exec"), main.__dict__)
    else:
        assert kind == "-m", arguments
        runpy.run_module(what, run_name="__main__", alter_sys=True)


def end_as(work: Callable[[], None]) -> NoReturn:
    """Do it, and end the process as python does, but for taking apart all that was imported."""
    status: Any = 0
    try:
        work()
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        sys.stderr.write(f"{status}\n")
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    address, client, *modules = sys.argv[1:]
    end_as(partial(become, serve(address, modules), client))
