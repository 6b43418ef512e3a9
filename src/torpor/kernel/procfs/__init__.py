"""Parsers for /proc: one file a /proc file, bytes in, records out.

``parse_`` functions take text and touch nothing; ``read_`` functions take a pid and read.
"""
