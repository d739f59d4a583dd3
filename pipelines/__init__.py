"""What is done with a network: data, metrics, the four stages, search, tracking, reports and the command line."""
