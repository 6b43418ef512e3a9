"""Jobs and containers that outlive a reboot: which ones, in what order, and what became of each.

``marks`` is what the user wants, ``planning`` what that means for what is here now, ``ledger`` what has been done so
far; ``saving`` and ``waking`` do it, at shutdown and at boot, by the commands that a user would type; ``units`` are
those of systemd that call them, and ``jump`` is the reboot itself.
"""
