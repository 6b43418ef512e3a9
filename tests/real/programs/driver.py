"""Drives an interactive Python by pexpect, both ends of the terminal in one tree: counts on once a file is there."""

import os
import select
import sys

import pexpect

go = sys.argv[1]
child = pexpect.spawn(sys.executable, ["-q"], env={**os.environ, "TERM": "dumb"}, encoding="utf-8", timeout=60)
child.expect(">>> ")
child.sendline("secret = 6 * 7")
child.expect(">>> ")
# Typed, but not yet entered.
child.send("print('it is', sec")
child.expect("sec")
print("prepared", flush=True)
while not os.path.exists(go):
    select.select([], [], [], 0.02)
child.sendline("ret)")
child.expect("it is 42")
child.sendline("import os, sys; print(os.isatty(0), os.tcgetpgrp(0) == os.getpgrp(), os.getsid(0) == os.getpid())")
child.expect("True True True")
child.sendintr()
child.expect("KeyboardInterrupt")
child.sendline("exit()")
child.expect(pexpect.EOF)
print("finished", flush=True)
