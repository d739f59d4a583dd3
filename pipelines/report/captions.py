"""How to read each figure of a run, for people who see such a figure for the first time."""

from __future__ import annotations

from typing import NamedTuple


class Caption(NamedTuple):
    """What a figure is called, where its numbers are, and how it is read."""

    heading: str
    numbers: str  # file below outputs/, {stage} is validate or test
    told: str


OF_TRAINING = {
    "learning_curves": Caption(
        "Learning curves",
        "train/history.csv",
        "E is the loss without penalty, after each epoch. While both lines fall, the network learns what holds for other rows "
        "too; where the training line falls on and the validation line rises, it learns its own rows by heart. The dotted line "
        "is the epoch whose weights are the model. Training E is taken as trained, with dropout and while the weights change, "
        "so it may start above the validation line. λΩ, the penalty, has a panel of its own: only training sees it.",
    ),
    "gradient_flow": Caption(
        "The error signal, epoch by epoch",
        "train/history.csv",
        "δ says how strongly a unit is told to change. A layer whose line lies far below those of later layers hardly learns. "
        "Saturated: the unit stands where φ is flat and passes little back (relu: to the left of 0, about half is usual). Dead: "
        "it passes nothing back on any row, and will not come back by itself.",
    ),
    "gradient_profile": Caption(
        "The error signal, by depth",
        "train/history.csv",
        "Read it from right to left, as the error travels: from the output back to the first layer. A line that falls to the "
        "left is a signal that vanishes. Since σ' ≤ 1/4, a sigmoid net loses at least three quarters of it a layer, unless the "
        "weights make up for it: the dotted line, where it is drawn.",
    ),
    "weights": Caption(
        "Weights, before and after",
        "train/weights.csv",
        "The outline is how the weights were drawn from the seed, the filled shape how they lie in the model. Wider: they have "
        "grown. A peak at 0: a penalty, L1 above all, has pulled them there. No difference: that layer has learned next to "
        "nothing.",
    ),
}
OF_REPORTS = {
    "confusion": Caption(
        "Which classes are taken for which",
        "{stage}/confusion.csv",
        "A row is what it is, a column what the network says; a number is how many. What is right lies on the diagonal, so look "
        "for shade beside it.",
    ),
    "roc": Caption(
        "ROC",
        "{stage}/roc.csv",
        "Every point is a threshold: which share of the class is found (up), at the price of which share of the other rows "
        "(right). Nearer to the upper left is better; the area is the probability that a row of the class ranks above another.",
    ),
    "pr": Caption(
        "Precision and recall",
        "{stage}/pr.csv",
        "Of the rows that are said to be of the class, how many are (up), against how many of the class are found (right). "
        "Where a class is rare this says more than ROC. The area is average precision.",
    ),
    "calibration": Caption(
        "Calibration",
        "{stage}/calibration.csv",
        "Of the rows that are given 80 %, do 80 % come true? Points on the line: yes. Below it the network is surer than it "
        "should be, above it less sure. Of several classes it is about the class that is predicted. Each point stands for "
        "equally many rows: the bar across is the range of their probabilities, the bar up the 95 % interval (Wilson).",
    ),
    "residuals": Caption(
        "Predicted against true",
        "{stage}/residuals.csv",
        "Left: every row a dot, on the line where the prediction is right. Right: what is left over. It should lie around 0 "
        "without any shape: a bend says that something is not learned, a funnel that the error grows with the value.",
    ),
}
