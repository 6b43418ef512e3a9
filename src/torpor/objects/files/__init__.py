"""Open files: descriptor tables, and each kind of file behind them.  The table of kinds is in ``table``."""
