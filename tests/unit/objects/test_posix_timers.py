from torpor.base.ids import Pid
from torpor.objects.task.posix_timers import Timer, parse_timers

TEXT = """ID: 3
signal: 37/00007ffd00000010
notify: signal/tid.1234
ClockID: 1
ID: 0
signal: 0/0
notify: none/pid.99
ClockID: -6
"""


def test_parse_timers() -> None:
    assert list(parse_timers(TEXT)) == [Timer(3, 1, 37, 0x7FFD00000010, 4, Pid(1234)), Timer(0, -6, 0, 0, 1, Pid(0))]
    assert list(parse_timers("")) == []
