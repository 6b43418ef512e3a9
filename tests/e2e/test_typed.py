"""What README and docs/containers.md show of containers, typed into an interactive shell on a host with Podman."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.private_podman import PrivatePodman
from harness.typed import Terminal, blocks_of, commands_in, environment
from torpor.cli import manual

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePodman]:
    with PrivatePodman(tmp_path_factory.mktemp("podman")) as found:
        found.make_image()
        yield found


@pytest.mark.parametrize("document", ["README.md", "docs/containers.md", "torpor(1)"])
def test_it_does_what_it_says(host: PrivatePodman, document: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    told = {**host.environment, **environment(commands_in(tmp_path / "bin"), tmp_path / "state")}
    if document == "torpor(1)":
        blocks: list[tuple[str, ...]] = [lines for _, lines in manual.CONTAINER_EXAMPLES]
    else:
        found = [block.lines for block in blocks_of(_ROOT / document)]
        blocks = [lines for lines in found if lines[0].startswith(("torpor setup", "torpor check web"))]
    assert blocks
    with Terminal(tmp_path, told, before=host.enter) as terminal:
        for block in blocks:
            if any(" web" in line for line in block):
                host.start("web")
            try:
                for line in filter(None, block):
                    terminal.succeed(line)
            finally:
                host.podman("rm", "--all", "--force", "--time=0")
            terminal.enter("torpor setup --undo")
            terminal.succeed("torpor setup")
    host.torpor("setup", "--undo")
