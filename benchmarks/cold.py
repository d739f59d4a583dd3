"""A whole cold `dvc repro` on digits beside one hand-written script that does the same work in one process.

The script splits, fits on Lightning, evaluates and logs to MLflow (sqlite), as their tutorials write it, with the same net,
epochs and early stopping. Both start from nothing, in fresh folders, in turn; the ratio of medians is the number to quote.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import mlflow, numpy as np, pytorch_lightning as pl, torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pl.seed_everything(1)
X, y = load_digits(return_X_y=True)
X_train, X_rest, y_train, y_rest = train_test_split(X, y, test_size=0.4, stratify=y, random_state=1)
X_valid, X_test, y_valid, y_test = train_test_split(X_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=1)
scaler = StandardScaler().fit(X_train)
parts = [(torch.tensor(scaler.transform(a), dtype=torch.float32), torch.tensor(b)) for a, b in
         ((X_train, y_train), (X_valid, y_valid), (X_test, y_test))]
train, valid, test = (TensorDataset(*part) for part in parts)

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 64), nn.ReLU(),
                                 nn.Dropout(0.2), nn.Linear(64, 10))
        self.loss_of = nn.CrossEntropyLoss()
    def training_step(self, batch, _):
        loss = self.loss_of(self.net(batch[0]), batch[1])
        loss = loss + sum(1e-4 * p.square().sum() for n, p in self.net.named_parameters() if "weight" in n)
        self.log("train_loss", loss)
        return loss
    def validation_step(self, batch, _):
        logits = self.net(batch[0])
        self.log("val_loss", self.loss_of(logits, batch[1]))
        self.log("val_accuracy", (logits.argmax(1) == batch[1]).float().mean())
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)

logger = MLFlowLogger(experiment_name="digits", tracking_uri="sqlite:///mlflow.db")
best = ModelCheckpoint(dirpath="checkpoints", monitor="val_loss")
trainer = pl.Trainer(max_epochs=30, logger=logger, callbacks=[EarlyStopping("val_loss", patience=8), best], accelerator="cpu",
                     enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Net(), DataLoader(train, 32, shuffle=True), DataLoader(valid, 32))
model = Net()
model.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
model.eval()
mlflow.set_tracking_uri("sqlite:///mlflow.db")
with mlflow.start_run(run_id=logger.run_id), torch.no_grad():
    for name, (rows, labels) in (("val", parts[1]), ("test", parts[2])):
        p = model.net(rows).softmax(1).numpy()
        mlflow.log_metrics({f"{name}_final_accuracy": accuracy_score(labels, p.argmax(1)),
            f"{name}_balanced_accuracy": balanced_accuracy_score(labels, p.argmax(1)),
            f"{name}_f1": f1_score(labels, p.argmax(1), average="macro"), f"{name}_log_loss": log_loss(labels, p),
            f"{name}_auc": roc_auc_score(labels, p / p.sum(1, keepdims=True), multi_class="ovr")})
    mlflow.log_artifact(best.best_model_path)
"""


def environment() -> dict[str, str]:
    """The interpreter's own folder first on the path; no telemetry on either side."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def by_hand(folder: Path) -> None:
    """The script, in an empty folder."""
    (folder / "train.py").write_text(SCRIPT)
    subprocess.run([sys.executable, "train.py"], cwd=folder, env=environment(), check=True, capture_output=True)


def by_pipeline(folder: Path) -> None:
    """`dvc repro` in a copy of this project that has run nothing yet."""
    subprocess.run(["dvc", "repro", "-q"], cwd=folder, env=environment(), check=True, capture_output=True)


def copied(folder: Path) -> Path:
    """This project's tracked files, as a repository of DVC's own."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in (n for n in names if (ROOT / n).is_file()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def main() -> None:
    """In turn, medians, ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {"dvc repro": [], "by hand": []}
    for _ in range(rounds + 1):  # the first round warms the file cache
        for name, run in (("dvc repro", by_pipeline), ("by hand", by_hand)):
            with tempfile.TemporaryDirectory() as scratch:
                folder = copied(Path(scratch)) if run is by_pipeline else Path(scratch)
                start = time.perf_counter()
                run(folder)
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    for name, taken in seconds.items():
        print(f"{name:10} median {median[name]:6.1f} s, {min(taken[1:]):.1f} to {max(taken[1:]):.1f}")
    print(f"ratio      {median['dvc repro'] / median['by hand']:6.2f}")


if __name__ == "__main__":
    main()
