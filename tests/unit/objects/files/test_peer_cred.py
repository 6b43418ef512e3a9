import pytest

from torpor.base.ids import TreePid
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.objects.files.socket import peer_cred


def _socket(pid: int, *groups: int) -> m.unix_sk_entry:
    return m.unix_sk_entry(torpor_peer_pid=pid, torpor_peer_uid=7, torpor_peer_gid=8, torpor_peer_group=groups)


def test_whom_an_image_names() -> None:
    assert peer_cred.noted(m.unix_sk_entry()) is None
    assert peer_cred.noted(_socket(5, 9, 10)) == peer_cred.Who(TreePid(5), 7, 8, (9, 10))
    assert peer_cred.connector(_socket(5)) is None


@pytest.mark.parametrize("entry", [_socket(1 << 31), _socket(5, *range(65537))], ids=["pid", "groups"])
def test_nobody_is_that(entry: m.unix_sk_entry) -> None:
    with pytest.raises(ImageError):
        peer_cred.noted(entry)
