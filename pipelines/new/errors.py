"""What `deltarule new` refuses."""


class ProjectError(ValueError):
    """A project that cannot be made as asked; nothing was written."""

    exit_code = 2
