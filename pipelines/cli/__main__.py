"""`python -m pipelines.cli` is `deltarule`."""

from pipelines.cli.app import main

main()
