"""deltarule as a tool of its own: built as a wheel and installed into a separate environment, which sees no source of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path

import warm
from conftest import BIN, WARM, call, copy_of_the_project

SCRIPT = "#!{python}\nimport sys\nfrom {module} import {main} as main\nsys.exit(main())\n"


@dataclass(frozen=True)
class Tool:
    """The environment, the wheel that was installed into it, and stand-ins for its commands (warm.py) if there are any."""

    folder: Path
    wheel: Path
    warm: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin/python"

    def environment(self, **more: str) -> dict[str, str]:
        """What a shell has in which this environment is on PATH, and nothing of ours."""
        hidden = ("PYTHONPATH", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        others = [place for place in kept["PATH"].split(os.pathsep) if Path(place) != BIN]
        return {
            **kept,
            "PATH": os.pathsep.join([*self.warm, str(self.folder / "bin"), *others]),
            "COLUMNS": "120",
            **more,
        }

    def __call__(self, *command: str | Path, cwd: Path, code: int = 0, **more: str) -> str:
        """Run a command as people do who installed the tool; what it said on both streams."""
        done = subprocess.run(
            [str(part) for part in command], cwd=cwd, env=self.environment(**more), capture_output=True, text=True
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{command} ended with {done.returncode}\n{said}"
        return said


def install(folder: Path) -> Tool:
    """Build the wheel and install it below `folder`. Libraries are those of this process's environment: nothing is fetched."""
    source = copy_of_the_project(folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    call(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder / "wheels", source, cwd=folder)
    [wheel] = (folder / "wheels").glob("*.whl")
    tool = Tool(folder / "environment", wheel)
    call(sys.executable, "-m", "venv", "--without-pip", tool.folder, cwd=folder)
    call(*pip, "--python", tool.python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    [site] = (tool.folder / "lib").glob("python*/site-packages")
    # A folder in a .pth file is on the path, but the .pth files in it are not read: an editable install there is not seen.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    for command, module, main in (
        ("dvc", "dvc.cli", "main"),
        ("mlflow", "mlflow.cli", "cli"),
        ("uvicorn", "uvicorn.main", "main"),
    ):
        script = tool.folder / "bin" / command
        script.write_text(SCRIPT.format(python=tool.python, module=module, main=main))
        script.chmod(0o755)
    return replace(tool, warm=(warm.start(str(tool.python)),)) if WARM else tool
