"""The restore: ``run`` does it; what it works on, and what comes when, lies beside."""
