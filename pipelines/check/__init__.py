"""Proofs that backends train the same experiment (parity) and a run comes out the same (reproduce)."""
