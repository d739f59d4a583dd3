"""Runs on record: which there are, in what they differ, and whether a difference is real."""
