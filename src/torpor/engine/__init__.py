"""The order of work: what is done when, and why then.  Objects know how; this layer knows the sequence."""
