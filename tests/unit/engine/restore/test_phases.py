"""The table of a restore: what can be told of it without a kernel."""

from torpor.engine.restore.phases import AFTER_FILES, BEFORE_CHILDREN, LAST, RESTORE

_STEPS = (*BEFORE_CHILDREN, *AFTER_FILES)


def _at(name: str) -> int:
    return next(at for at, phase in enumerate(RESTORE) if phase.name == name)


def test_each_phase_has_a_name_and_a_reason_of_its_own() -> None:
    for table in ((*RESTORE, *LAST), _STEPS):
        assert len({phase.name for phase in table}) == len(table)
        assert len({phase.why for phase in table}) == len(table)


def test_what_the_caller_does_not_allow_is_refused_before_anybody_is_told_or_made() -> None:
    for name in ("images", "policy", "processor", "security labels", "plan"):
        assert _at(name) < _at("pre-restore") < _at("first process")


def test_whoever_is_told_last_can_say_no_to_nothing_that_has_gone_on() -> None:
    after = [phase.name for phase in RESTORE[_at("post-restore") :]]
    assert after.index("guard") < after.index("network") < after.index("go") == len(after) - 1


def test_images_are_not_to_blame_where_nothing_of_them_is_looked_at() -> None:
    blameless = {phase.name for phase in RESTORE if not phase.by_images}
    assert {"pre-restore", "post-restore", "pre-resume", "go"} <= blameless
    # Whatever reads an image, or makes what it names, goes by it.
    assert not blameless & {"images", "plan", "namespaces", "children", "memory", "descriptors", "aspects", "clear"}
