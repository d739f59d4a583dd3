"""What is on record, and what it says: which runs there are, in what they differ, and whether a difference is real."""
