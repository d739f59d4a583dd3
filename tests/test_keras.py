"""Keras on TensorFlow: the contract of a backend, and what is particular to it."""

from backends.conformance import Conformance


class TestKeras(Conformance):
    backend = "keras"
