from backends.conformance import Conformance


class TestTorch(Conformance):
    backend = "torch"
