"""Shells: a script with a pipeline."""

from harness.program import Program, need


def test_bash_pipeline(program: Program) -> None:
    """Numbers flow through a pipeline of three programs; none is lost or doubled."""
    script = program.base / "pipeline.sh"
    script.write_text(
        "n=0\n"
        "while :; do echo $n; n=$((n+1)); [ -e stop ] && exit; sleep 0.002; done |\n"
        "  { while read x; do echo $((x * 2)); done; } |\n"
        "  { while read y; do echo $y; done >numbers; echo finished; }\n"
    )
    program.start([need("bash"), str(script)])
    numbers = program.base / "numbers"
    numbers.touch()
    program.wait_file(numbers, 50)
    program.sleep_and_wake()
    program.wait_file(numbers, len(numbers.read_text().splitlines()) + 50)
    (program.base / "stop").touch()
    program.wait_log("finished")
    found = [int(line) for line in numbers.read_text().split()]
    assert found == [2 * number for number in range(len(found))]
    assert len(found) >= 100
