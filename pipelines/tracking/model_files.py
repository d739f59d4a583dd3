"""The folder of an MLflow model, without MLflow: its save_model imports itself, pandas and what the model is made of, 1.5 s.

The files are those that MLflow 3.17 writes, byte for byte (a test holds them side by side), for models like ours: code and a
folder of files, a signature that takes anything, an example, and requirements that are given. Where another MLflow is installed,
that writes them.
"""

from __future__ import annotations

import json
import platform
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.tracking.direct import VERSIONS

DESCRIPTION = "MLmodel"
EXAMPLE, SERVED_EXAMPLE = "input_example.json", "serving_input_example.json"


@dataclass(frozen=True)
class Written:
    """A model before it is written: the module `code`, which loads the folder `run`. The rest as `tracking.export` has it."""

    code: Path
    run: Path
    columns: Mapping[str, str]
    answers: Mapping[str, str]
    example: Mapping[str, Sequence[Any]]
    requirements: Sequence[str]


def known(columns: Iterable[str] = ()) -> bool:
    """Whether the MLflow that is installed writes models as it is done here; a column without a name it refuses."""
    return metadata.version("mlflow").startswith(VERSIONS) and all(columns)


def save(model: Written, folder: Path) -> None:
    """Write a model into a folder that is not there yet."""
    shutil.copytree(model.run, folder / "artifacts/run")
    shutil.copyfile(model.code, folder / model.code.name)
    split = {"columns": list(model.example), "data": list(zip(*model.example.values(), strict=True))}
    (folder / EXAMPLE).write_text(json.dumps(split), "utf-8")
    (folder / SERVED_EXAMPLE).write_text(json.dumps({"dataframe_split": split}, indent=2), "utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _write_yaml(folder / DESCRIPTION, _description(model, size))
    (folder / "requirements.txt").write_text("\n".join(model.requirements), "utf-8")
    _write_yaml(folder / "conda.yaml", _conda(model.requirements))
    _write_yaml(folder / "python_env.yaml", _python_env(), sort_keys=False)


def describe(folder: Path, values: Mapping[str, str]) -> None:
    """Put more into the description of a model, whoever wrote it."""
    import yaml

    known = yaml.safe_load((folder / DESCRIPTION).read_text(encoding="utf-8"))
    _write_yaml(folder / DESCRIPTION, {**known, **values})


def _description(model: Written, size: int) -> dict[str, Any]:
    return {
        "flavors": {
            "python_function": {
                "artifacts": {"run": {"path": "artifacts/run", "uri": "run"}},
                "cloudpickle_version": metadata.version("cloudpickle"),  # noted, and not used
                "code": None,
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.pyfunc.loaders.code_model",
                "model_code_path": model.code.name,
                "python_version": platform.python_version(),
                "streamable": False,
            }
        },
        "is_signature_from_type_hint": False,
        "metadata": {"columns": dict(model.columns)},
        "mlflow_version": metadata.version("mlflow"),
        "model_id": None,
        "model_size_bytes": size,
        "model_uuid": uuid.uuid4().hex,
        "prompts": None,
        "saved_input_example_info": {
            "artifact_path": EXAMPLE,
            "pandas_orient": "split",
            "serving_input_path": SERVED_EXAMPLE,
            "type": "dataframe",
        },
        "signature": {"inputs": _schema(dict.fromkeys(model.columns, "any")), "outputs": _schema(model.answers), "params": None},
        "type_hint_from_example": False,
        "utc_time_created": str(datetime.now(UTC).replace(tzinfo=None)),
    }


def _schema(kinds: Mapping[str, str]) -> str:
    return json.dumps([{"type": kind, "name": name, "required": True} for name, kind in kinds.items()])


def _conda(requirements: Sequence[str]) -> dict[str, Any]:
    pip = _version("pip")
    first = [f"python={platform.python_version()}", f"pip<={pip}" if pip else "pip"]
    return {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": [*first, {"pip": list(requirements)}]}


def _python_env() -> dict[str, Any]:
    build = [f"{name}=={version}" if (version := _version(name)) else name for name in ("pip", "setuptools", "wheel")]
    return {"python": platform.python_version(), "build_dependencies": build, "dependencies": ["-r requirements.txt"]}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _write_yaml(path: Path, content: Mapping[str, Any], sort_keys: bool = True) -> None:
    """As MLflow reads it, in YAML 1.1: by PyYAML, which it brings."""
    import yaml

    path.write_text(yaml.safe_dump(dict(content), default_flow_style=False, sort_keys=sort_keys), "utf-8")
