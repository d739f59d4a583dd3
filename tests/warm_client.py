"""Stands for `deltarule`, `dvc` or `python` on PATH in tests: has a process of tests/warm.py carry the command out, or runs it.

Started without `site`, so it costs some 10 ms. It is the process that a test sees: what is sent to it is passed on, and it ends
as the command does.
"""

import _signal
import _socket
import marshal
import os
import re
import resource
import sys

BACKENDS = r"\b(lightning|keras-jax|keras|reference)\b"
RESOURCES = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
STATUS = ("Uid", "Gid", "Groups", "Umask", "SigBlk", "SigIgn", "Cpus_allowed", "CapEff", "NSpid")


def circumstances() -> list[object]:
    """What a process inherits, and a warm one cannot take over."""
    with open("/proc/self/status") as file:
        status = [line for line in file if line.startswith(STATUS[:-1])]
    spaces = [os.stat(f"/proc/self/ns/{name}").st_ino for name in ("mnt", "net", "pid", "user")]
    return [status, spaces, os.getpriority(os.PRIO_PROCESS, 0), [resource.getrlimit(number) for number in RESOURCES]]


def framework(command: list[str]) -> str:
    """The backend that the command will most likely train with, or "none": a wrong guess costs an import, no more."""
    named = {*re.findall(BACKENDS, " ".join(command[1:]))}
    if not named and "pipelines.record" not in command:
        try:
            with open("params.yaml") as file:
                named = {*re.findall(rf"^ *backend: *{BACKENDS}", file.read(), re.MULTILINE)} or {"lightning"}
        except OSError:
            pass
    return named.pop() if len(named) == 1 else "none"


def may_be_warm(command: list[str]) -> bool:
    """Not at a terminal, not where someone means to signal a group of processes, and of Python's only what is known."""
    if os.environ.get("DELTARULE_COLD") or any(map(os.isatty, (0, 1, 2))):
        return False
    name, words = os.path.basename(command[0]), [word for word in command[1:] if word != "-P"]
    if name == "python":
        return (words[:1] == ["-m"] and words[1:2] in (["pipelines.record"], ["pipelines.cli"], ["dvc"])) or words[:1] == ["-c"]
    return os.getpgrp() != os.getpid()


def ask(folder: str, command: list[str]) -> _socket.socket | None:
    """A connection to the process that carries the command out; it has all open files of this one."""
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        server.connect(f"{folder}/{framework(command)}.socket")
    except OSError:
        return None
    files = [number for number in map(int, os.listdir("/proc/self/fd")) if number != server.fileno() and is_open(number)]
    request = marshal.dumps([command, dict(os.environb), os.getcwd(), circumstances(), files])
    message = len(request).to_bytes(4, "little")
    server.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(n.to_bytes(4, sys.byteorder) for n in files))])
    while request:
        request = request[server.send(request) :]
    if server.recv(1) != b"y":
        return None
    for number in files:  # who reads what the command writes waits for it alone
        os.close(number)
    return server


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:  # the listing's own
        return False
    return True


def wait(server: _socket.socket) -> None:
    """End as the command ends; signals are passed on to it."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2):
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, lambda sent, _: server.send(bytes([sent])))
    told = server.recv(4)
    status = int.from_bytes(told, "little") if len(told) == 4 else 255 << 8
    if os.WIFSIGNALED(status):
        _signal.signal(os.WTERMSIG(status), _signal.SIG_DFL) if os.WTERMSIG(status) != _signal.SIGKILL else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def main(folder: str, python: str) -> None:
    program = os.path.basename(sys.argv[0])
    real = [python] if program == "python" else [python, f"{os.path.dirname(python)}/{program}"]
    if may_be_warm(sys.argv) and (server := ask(folder, [*real, *sys.argv[1:]])):
        wait(server)
    os.execv(python, [*real, *sys.argv[1:]])
