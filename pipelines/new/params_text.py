"""The text of a new project's params.yaml beside its data block. Tests hold it against this repository's own params.yaml."""

from __future__ import annotations

HEAD = """\
# One experiment, whole. Change a value here, or for one run: deltarule run --set model.activation=tanh
# A key that is left out has its default. `deltarule schema` prints every key with its range and meaning.

seed: 0                       # initial weights, order of the rows, dropout: all follow from it

"""

# <backend> and <experiment> are lines to be filled in.
REST = """\
model:
  hidden: [128, 64]           # units of each hidden layer
  activation: relu            # sigmoid, tanh, relu, leaky_relu, identity, elu, selu, gelu, silu, softplus
  slope: 0.01                 # of leaky_relu, left of 0
  dropout: 0.2                # probability that a hidden unit is dropped; one number, or one a hidden layer
  input_dropout: 0.0          # the same for the inputs
  initializer: auto           # He for the relu family, Glorot for the others

regularization:               # the objective is E + l1·Σ|W| + l2·ΣW²; one number, or one a layer (hidden + 1)
  l1: 0.0
  l2: 1e-4

train:
<backend>
  optimizer:
    name: adam                # sgd, adam, adamw, rmsprop; each has options of its own, see docs/spec.md
    learning_rate: 1e-3
  schedule:
    name: constant            # constant, step, cosine
    warmup: 0                 # steps over which the learning rate rises
  epochs: 30                  # at most; early stopping may end a run sooner
  batch_size: 32
  class_weights: none         # in the loss: balanced, or {label: weight}
  clip_norm: null             # clip the gradient to this norm; null: never
  early_stopping:
    monitor: loss             # on the validation rows; the weights of the best epoch are the model
    patience: 8               # epochs without a better one; null: run to the end
  precision: float32          # float32, float64
  devices: auto
  threads: auto               # of the processor; auto: by the size of the work

# What the validation report must reach, or the pipeline stops before the test rows are opened. An example for classes:
#   thresholds:
#     accuracy: {min: 0.9}
thresholds: {}

search:                       # a study: which keys it varies, over which values, and what is best
  metric: loss                # of the validation rows; or several: [loss, weights], where weights is how many numbers the net has
  direction: minimize         # or maximize; of several metrics a list
  trials: 50                  # in all: a study that is continued is topped up to it
  sampler: tpe                # tpe, random, grid, qmc, gp
  pruner: none                # none, median, halving, hyperband: ends trials that fall behind
  rung: auto                  # epochs between two looks of the pruner; auto: a tenth of train.epochs
  generation: 32              # trials drawn together, before the next are drawn
  width: auto                 # networks trained as one stack, at most; changes speed alone
  seeds: 1                    # networks a trial; its value is their mean
  trial_seeds: same           # own: each trial from a seed of its own
  timeout: null               # seconds after which no generation is begun
  seed: 0                     # of the sampler
  engine: auto                # auto, here, processes, or ray:ADDRESS of a cluster
  workers: auto               # processes; auto: one a core
  storage: null               # a database, postgresql+psycopg://HOST/NAME; null: a file in the study's folder
  # Also: {low: 8, high: 64, step: 8}; model.dropout.0 for one layer; `when`, to draw a key only where another was drawn so:
  #   train.optimizer.momentum: {low: 0.0, high: 0.9, when: {train.optimizer.name: sgd}}
  space:
    model.activation: {choices: [relu, leaky_relu, tanh, sigmoid]}
    model.dropout: {low: 0.0, high: 0.5}
    regularization.l1: {low: 1e-6, high: 1e-3, log: true, or: 0.0}    # `or`: the range, or exactly this
    regularization.l2: {low: 1e-6, high: 1e-2, log: true, or: 0.0}

tracking:                     # every run is put on record in MLflow
  enabled: true
  uri: null                   # of a server; null: a database inside this project
<experiment>
"""

SPELLINGS = """\
  spellings: {}               # column: {what a cell says: what is meant}, such as kind: {Cta: cat, CAT: cat}
  missing:
"""

# The keys of the data block that are not filled in.
DATA = """\
    numeric: median           # of the training rows; or a number, or refuse
    indicator: true           # one more input, 1 where a number was missing
    categorical: category     # one of its own; or refuse
  categories:
    most: 50                  # of a column, with an input each; the others share one
    least_rows: 1             # that a category needs for an input of its own
  format:                     # of a text file
    delimiter: auto           # comma, semicolon, tab, pipe, space
    quote: double             # single, none
    encoding: auto            # utf-8, utf-16, latin-1, ...
    header: auto              # true, false
    decimal: point            # comma
  split:                      # shares of the rows; they sum to 1
    train: 0.6                # fits the weights and the preprocessing
    valid: 0.2                # chooses: early stopping, search
    test: 0.2                 # opened once, for the number that is reported
    seed: 0                   # its own, so that runs with different seeds share their rows
    stratify: auto            # keep the shares of the classes; auto: in classification
    group: null               # a column whose equal values stay in one part
    time: null                # a column that orders the rows: the earliest train, the latest test
    part: null                # a column that says train, valid or test
    folds: null               # k networks, each validated on another k-th of the rows that do not test
    duplicates: together      # equal rows stay in one part; or: apart
  scaling: standardize        # of the inputs: none, standardize, minmax, quantile (to a normal distribution)
  scale_target: true          # regression only; metrics keep the target's own units
"""
