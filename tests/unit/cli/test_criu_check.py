"""``criu check --feature``: what works, not what the kernel has."""

import pytest

from torpor.cli.criu import check
from torpor.cli.criu.options import Options
from torpor.kernel.features import FEATURES


def _asking(name: str) -> Options:
    options = Options()
    options.feature = name
    return options


@pytest.mark.parametrize("name", check.NOT_DONE)
def test_what_torpor_does_not_do_is_not_supported(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FEATURES, name, lambda: True)
    assert check.main(_asking(name)) == 1
    assert f"{name} is not supported: {check.NOT_DONE[name]}" in capfd.readouterr().err


def test_what_the_kernel_has_and_torpor_does_is_supported(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FEATURES, "openat2", lambda: True)
    assert check.main(_asking("openat2")) == 0
    assert capfd.readouterr().out == "openat2 is supported\n"
