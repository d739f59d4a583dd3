"""What stands in a new project, beside params.yaml. Tests hold the pipeline against this repository's own dvc.yaml."""

from __future__ import annotations

DVC_YAML = """\
# The pipeline: `dvc repro` runs what is out of date. Each stage names the keys of params.yaml and the files that it depends
# on. outputs/code/ holds a hash of deltarule's own code, a file a stage: a new version re-runs what it may change.

stages:
  code:
    cmd: deltarule code
    always_changed: true # it takes a moment, and what it writes seldom differs
    outs:
      - outputs/code/split
      - outputs/code/train
      - outputs/code/validate
      - outputs/code/test
      - outputs/code/search

  split:
    cmd: deltarule split
    deps:
      # One file. Of data that come split, list each file in its place; of openml:ID and the bundled sets, leave it out.
      - ${data.source}
      - outputs/code/split
    params:
      - data
    outs:
      - outputs/data/about.json
      - outputs/data/train
      - outputs/data/valid
      - outputs/data/test

  train:
    cmd: deltarule train
    deps:
      - outputs/data/about.json
      - outputs/data/train
      - outputs/data/valid
      - outputs/code/train
    params:
      - seed
      - data # which run.json tells
      - model
      - regularization
      - train
    outs:
      - outputs/train/model.safetensors
      - outputs/train/run.json
      - outputs/train/history.csv
      - outputs/train/metrics.json

  validate:
    cmd: deltarule validate
    deps:
      - outputs/data/about.json
      - outputs/data/valid
      - outputs/train/model.safetensors
      - outputs/train/run.json
      - outputs/code/validate
    params:
      - thresholds
    outs:
      - outputs/validate # what is in it depends on the task

  test:
    cmd: deltarule test
    deps:
      - outputs/data/about.json
      - outputs/data/test
      - outputs/train/model.safetensors
      - outputs/train/run.json
      - outputs/validate # the test rows are opened once all choices are made
      - outputs/code/test
    outs:
      - outputs/test

  record:
    cmd: deltarule sync
    always_changed: true # so that what DVC restored from its cache is on record too
    deps:
      - outputs/train/run.json
      - outputs/validate
      - outputs/test

metrics:
  - outputs/train/metrics.json
  - outputs/validate/metrics.json
  - outputs/test/metrics.json

plots:
  - learning curves:
      x: epoch
      y:
        outputs/train/history.csv: [train_objective, train_loss, val_loss]
      y_label: loss
"""

PLOTS_OF_CLASSES = """\
  - confusion on the validation rows:
      template: confusion
      x: predicted
      y:
        outputs/validate/confusion.csv: actual
  - confusion on the test rows:
      template: confusion
      x: predicted
      y:
        outputs/test/confusion.csv: actual
  - ROC on the test rows:
      template: scatter
      x: fpr
      y:
        outputs/test/roc.csv: tpr
"""

SEARCH_YAML = """\
# The search as a stage of its own: `dvc repro studies/dvc.yaml`. A plain `dvc repro` does not run it, and nothing of it
# chooses for you: `deltarule adopt` writes a winner into params.yaml.

vars:
  - ../params.yaml:data

stages:
  search:
    wdir: ..
    cmd: deltarule search --anew --into outputs/search
    deps:
      - ${data.source} # as in dvc.yaml
      - outputs/code/search
    params: # what decides which trials there are, and what they are worth; not how fast, or on what
      - seed
      - data
      - model
      - regularization
      - train
      - search.metric
      - search.direction
      - search.trials
      - search.sampler
      - search.pruner
      - search.rung
      - search.generation
      - search.seeds
      - search.trial_seeds
      - search.timeout
      - search.seed
      - search.space
    outs:
      - outputs/search
"""

DVC_IGNORE = """\
# What DVC need not look at: records and launches, which it does not keep.
.venv/
__pycache__/
/runs/
/.mlflow/
/.deltarule/
/studies/*/
"""

GIT_IGNORE = """\
.venv/
__pycache__/
/outputs/
/runs/
/.mlflow/
/.deltarule/
/studies/*/
/dvc_plots/
"""

README = """\
# {name}

Predicts {target} from {source} with a feed-forward network. `params.yaml` says how, `dvc repro` carries it out.

- `dvc repro`: split the rows, train, validate, test; again, it runs what a change made necessary
- `dvc metrics show`, `dvc plots show`, `deltarule ui`: how good it is, learning curves, every run on record
- `deltarule run --set model.dropout=0.3`: one experiment beside the pipeline; `deltarule search`: many
- `deltarule predict . new.csv --out predicted.csv`: predictions for rows of the same columns
- `git add . && git commit -m "First run"`: keeps the spec and `dvc.lock`, which says what came of it
"""
