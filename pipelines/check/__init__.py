"""Proofs that backends train the same experiment (parity), and that a run comes out the same again (reproduce)."""
