"""What commands and notebooks call: run, results, predict, and many networks at once."""
