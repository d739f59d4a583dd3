"""The command `deltarule`: one module a group of commands. A command parses, calls and prints."""

from pipelines.cli.app import app, main

__all__ = ["app", "main"]
