"""The error of a run that cannot be done as asked; apart, because the rest of the training needs torch."""


class RunError(Exception):
    """A run that cannot be started, gone on with or used as asked; the text says why and what to do."""
