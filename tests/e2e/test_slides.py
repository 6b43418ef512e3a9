"""The talk's demonstration, as a test."""

from pathlib import Path

from e2e.slides import Slides


def test_slides() -> None:
    """Run, ask, checkpoint, copy to another host, restore, ask, and two copies from the same file."""
    said: list[str] = []
    slides = Slides(said.append)
    try:
        container, address = slides.first_host()
        assert slides.first("ps", "--all", "--quiet") == "", "a container run with --rm is gone after its checkpoint"
        slides.second_host(container, address)
        slides.copies(address)
        assert len(slides.second("ps", "--quiet").split()) == 3
        left = [slides.first.machine.base, slides.second.machine.base]
    except BaseException as error:
        error.add_note("\n".join(said))
        raise
    finally:
        slides.close()
    assert not any(Path(path).exists() for path in left)
