"""Processes that have imported libraries and run nothing: a command that a test starts is a fork of one, and imports only us.

Most of the time of a command in a test is that of importing torch, TensorFlow, MLflow. `start` puts stand-ins for `deltarule`,
`dvc` and `python` (warm_client.py) into a folder, to be first on PATH, and a server beside them. A fork has the client's open
files, folder, environment and arguments, and imports our packages itself, from where its client would. What a fork cannot take
over (variables that libraries read when they are imported, limits, priorities, modules of one's own with a library's name)
starts cold, as everything does where DELTARULE_COLD is set.
"""

from __future__ import annotations

import atexit
import base64
import fcntl
import gc
import importlib
import marshal
import os
import re
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import warm_client

BEFORE = dict(os.environb)  # libraries change it when they are imported
BIN = str(Path(sys.executable).parent)
LIBRARIES = """
    multiprocessing.forkserver concurrent.futures.process numpy pandas pyarrow.csv pyarrow.compute pyarrow.parquet scipy.stats
    scipy.special sklearn.metrics sklearn.datasets matplotlib.pyplot matplotlib.backends.backend_agg PIL.PngImagePlugin jinja2
    onnx onnxruntime pydantic.dataclasses ruamel.yaml filelock safetensors.numpy rich.console rich.table rich.progress tabulate
    rich.markdown typer.main typer.completion typer.rich_utils optuna alembic.config alembic.command sqlalchemy.dialects.sqlite
    mlflow.pyfunc mlflow.tracking mlflow.store.tracking.sqlalchemy_workspace_store mlflow.store.model_registry.sqlalchemy_store
    dvc.cli.parser dvc.repo.reproduce dvc.repo.artifacts dvc.repo.datasets dvc.repo.metrics dvc.repo.params dvc.repo.plots
    dvc.repo.open_repo dvc._debug dvc.analytics dvc.compare dvc.cachemgr dvc.data_cloud dvc.dirs dvc.rwlock dvc.utils.strictyaml
    typer._click.decorators dvc_data.hashfile.db.local scmrepo.git dulwich.worktree configobj networkx sklearn.ensemble
"""
FRAMEWORKS = {
    "none": {}, "reference": {},
    "lightning": {"MKL_CBWR": "AUTO", "import": "torch pytorch_lightning"},
    "keras": {"KERAS_BACKEND": "tensorflow", "import": "keras"},
    "keras-jax": {"KERAS_BACKEND": "jax", "import": "keras tensorflow jax.scipy.special"},
}  # fmt: skip
ENDED: list[int] = []
BLANK = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")  # a PNG
# For methods of matplotlib's Figure: figures are put together, but not rendered, which is most of what a record costs.
UNDRAWN = {"get_layout_engine": lambda drawing: None, "savefig": lambda drawing, file, **_: file.write(BLANK)}
# Read by libraries when they are imported, or by Python when it starts; not what scikit-learn and we set for ourselves.
AT_IMPORT = re.compile(
    "(OMP|MKL(?!_CBWR)|OPENBLAS|NUMEXPR|TF|KERAS|JAX|XLA|CUDA|PJRT|LD|LC|RAY|XDG|TORCH|MPL.*)_|LANG|HOME|MALLOC"
    "|FORCE_COLOR|PY_COLORS|TERMINAL_WIDTH|GITHUB_ACTIONS|PYTHON(?!PATH$)"
)


def start(python: str = f"{BIN}/python") -> str:
    """A folder of stand-ins for an environment's commands, whose server ends with this process."""
    folder = tempfile.mkdtemp(prefix="warm-")
    for name in ("deltarule", "dvc", "python"):
        file = Path(folder, name)
        begin = f'#!{python} -ISE\nimport sys\nsys.path.insert(0, "{Path(__file__).parent}")\n'
        file.write_text(f'{begin}import warm_client\nwarm_client.main("{folder}", "{python}")\n')
        file.chmod(0o755)
    listening = [socket.socket(socket.AF_UNIX) for _ in FRAMEWORKS]
    for name, server in zip(FRAMEWORKS, listening, strict=True):
        server.bind(f"{folder}/{name}.socket")
        server.listen(64)
    numbers = [server.fileno() for server in listening]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with Path(folder, "log").open("wb") as log:
        process = subprocess.Popen(
            [python, __file__, folder, *map(str, numbers)], env=environment, pass_fds=numbers,
            stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0,
        )  # fmt: skip
    for server in listening:
        server.close()
    process.wait()  # it goes on as nobody's child: tests count what they leave behind
    atexit.register(shutil.rmtree, folder)
    atexit.register(process.stdin.close)
    return folder


class Request:
    """A command that a client hands over: itself, what surrounds it, and its open files with the numbers they have there."""

    def __init__(self, command, environment, folder, circumstances, numbers, files) -> None:
        self.command, self.environment, self.folder = command, environment, folder
        self.circumstances, self.numbers, self.files = circumstances, numbers, files
        self.safe = "-P" in command[1:2]
        self.words = command[2 if self.safe else 1 :]

    def path(self) -> list[str]:
        """What Python would put before the libraries' folders."""
        first = {"-m": self.folder, "-c": ""}.get(self.words[0], os.path.dirname(self.words[0]))
        given = os.fsdecode(self.environment.get(b"PYTHONPATH", b"")).split(os.pathsep)
        return [*([] if self.safe else [first]), *(os.path.join(self.folder, place) for place in given if place)]


def serve(listening: dict[str, socket.socket]) -> Request:
    """The libraries are imported for the first command, a framework for the first one that wants it, in a process of its own.

    Returns in the process that is to carry a command out.
    """
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    for name, server in listening.items():
        selector.register(server, selectors.EVENT_READ, name)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                os._exit(0)
            import_all(LIBRARIES.split())
            selector.unregister(key.fileobj)
            if not os.fork():
                selector.close()
                for name in {*listening} - {key.data}:
                    listening[name].close()
                return serve_one(key.data, listening[key.data])


def serve_one(name: str, server: socket.socket) -> Request:
    """Forks itself for each command that it suits."""
    before = dict(os.environ)
    os.environ.update(FRAMEWORKS[name])
    import_all(os.environ.pop("import", "").split())
    os.environ.clear()
    os.environ.update(before)
    gc.collect()
    gc.freeze()
    circumstances = warm_client.circumstances()
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ, lambda: os._exit(0))
    selector.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data:
                key.data()
                continue
            client = server.accept()[0]
            request = receive(client)
            if request and suits(request, circumstances):
                if not (child := os.fork()):
                    client.sendall(b"y")
                    client.close()
                    for other in [*selector.get_map().values()]:
                        os.close(other.fd)
                    selector.close()
                    return request
                watch(selector, client, child)
            else:
                client.close()
            for number in request.files if request else ():
                os.close(number)


def import_all(names: list[str]) -> None:
    for name in names:
        with suppress(ImportError):  # the command will say what is missing
            importlib.import_module(name)


def receive(client: socket.socket) -> Request | None:
    """What the client sent, unless it is gone."""
    head, files, _, _ = socket.recv_fds(client, 4, 250)
    length, read = int.from_bytes(head, "little"), b""
    while len(read) < length and (part := client.recv(length - len(read))):
        read += part
    return Request(*marshal.loads(read), files) if head and len(read) == length else None


def suits(request: Request, circumstances: list[object]) -> bool:
    """Whether a process that starts cold would be the same."""
    known, theirs = ({k: v for k, v in of.items() if AT_IMPORT.match(os.fsdecode(k))} for of in (BEFORE, request.environment))
    own = [place for place in request.path() if place != BIN and os.path.isdir(place)]
    names = {name.removesuffix(".py") for place in own for name in os.listdir(place)}
    hides = any(name in sys.modules for name in names if name.isidentifier())  # dvc.lock is none of theirs
    return not hides and known == theirs and request.circumstances == circumstances


def watch(selector: selectors.BaseSelector, client: socket.socket, child: int) -> None:
    """Pass signals on to the child, which dies with its client, and to the client how the child ended."""
    process = os.pidfd_open(child)

    def hear() -> None:
        number = client.recv(1)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number[0] if number else signal.SIGKILL)
        if not number:
            selector.unregister(client)

    def tell() -> None:
        _, status = os.waitpid(child, 0)
        with suppress(OSError):
            client.sendall(status.to_bytes(4, "little"))
        with suppress(KeyError):
            selector.unregister(client)
        selector.unregister(process)
        client.close()
        os.close(process)

    selector.register(client, selectors.EVENT_READ, hear)
    selector.register(process, selectors.EVENT_READ, tell)


def become(request: Request, folder: str) -> Callable[[], Any]:
    """Take over what the client had; what is left to run."""
    os.setpgid(0, 0)
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 500) for number in request.files]
    for number in request.files:
        os.close(number)
    for number, place in zip(high, request.numbers, strict=True):
        os.dup2(number, place)
        os.close(number)
    os.chdir(request.folder)
    os.environ.clear()
    os.environb.update(request.environment)
    sys.path[:0] = [*dict.fromkeys(request.path())]
    sys.orig_argv, sys.argv, sys.executable = request.command, [*request.words], f"{folder}/python"
    importlib.invalidate_caches()
    tempfile.tempdir = None
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if b"DELTARULE_UNDRAWN" in request.environment:
        for name, stand_in in UNDRAWN.items():
            setattr(sys.modules["matplotlib.figure"].Figure, name, stand_in)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if request.words[0] == "-m":
        name = sys.argv.pop(1)
        return lambda: runpy._run_module_as_main(name)
    if request.words[0] == "-c":
        text, file = sys.argv.pop(1), "<string>"
    else:
        text, file = Path(sys.argv[0]).read_text(), sys.argv[0]
        main.__file__ = file
    return lambda: exec(compile(text, file, "exec"), main.__dict__)


def leave() -> None:
    """Registered first, so called last. What libraries hold is not taken apart: it takes half a second, or for ever."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            ENDED.append(120)  # as Python ends
    if ENDED == [-signal.SIGINT]:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(ENDED[-1] & 0xFF)


def run(command: Callable[[], Any]) -> None:
    """Note what Python would end with, and say what it would."""
    try:
        command()
    except SystemExit as error:
        if not isinstance(error.code, int | None):
            print(error.code, file=sys.stderr)
        ENDED.append(error.code or 0 if isinstance(error.code, int | None) else 1)
    except BaseException as error:
        ENDED.append(-signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1)
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        ENDED.append(0)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    atexit.register(leave)
    place, *given = sys.argv[1:]
    sys.path.remove(str(Path(__file__).parent))
    asked = serve({name: socket.socket(fileno=int(number)) for name, number in zip(FRAMEWORKS, given, strict=True)})
    run(become(asked, place))
