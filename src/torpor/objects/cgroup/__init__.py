"""Control groups, v1 and v2: which ones tasks are in, what is below them, and the freezer."""
