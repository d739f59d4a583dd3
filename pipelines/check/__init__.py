"""Proofs: that the backends train the same experiment (parity), and that a run on record comes out the same (reproduce)."""
