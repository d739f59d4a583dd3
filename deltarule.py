"""The notebook's way in: load an experiment, change values, run it, look at metrics, history, predictions and the model.

    import deltarule
    e = deltarule.load("params.yaml").override("model.activation", "tanh")
    run = deltarule.run(e)
    run.metrics["accuracy"], run.history["val_loss"], run.model.predict(rows)

Nothing of its own: the work lives in pipelines/.
"""

from __future__ import annotations

__version__ = "0.1.0"
