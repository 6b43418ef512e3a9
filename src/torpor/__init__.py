"""torpor: put running Linux processes to sleep in files, and wake them again."""

__version__ = "0.1.0"
