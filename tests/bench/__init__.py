"""Measurements: the same synthetic loads through each engine, alternating, in one run."""
