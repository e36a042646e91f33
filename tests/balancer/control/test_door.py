"""Where the admin socket goes when the file does not say."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from timewait.balancer.control.door import Door, folder, holder, place
from timewait.balancer.engine import BalancerError


@pytest.mark.parametrize(
    ("wanted", "file", "name"),
    [
        ("", "clb.toml", "timewait/clb.sock"),
        ("", "/etc/clb/shop.conf", "timewait/shop.sock"),
        ("", "-", f"timewait/balance-{os.getpid()}.sock"),  # several may run at once without a name
        ("", "/proc/self/fd/7", f"timewait/balance-{os.getpid()}.sock"),
    ],
)
def test_a_name_from_the_file(wanted: str, file: str, name: str, tmp_path: Path) -> None:
    found = place(wanted, file, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found == tmp_path / name
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700


def test_what_the_file_says_is_taken_as_it_is() -> None:
    assert place("/run/clb/admin.sock", "clb.toml", {}) == Path("/run/clb/admin.sock")


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "timewait").mkdir()
    (tmp_path / "timewait").chmod(0o777)
    with pytest.raises(BalancerError, match="is no folder that only this user may write to"):
        folder({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "timewait").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BalancerError, match="is no folder"):
        folder({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BalancerError, match="No such file or directory"):
        Door(tmp_path / "none" / "admin.sock")


def test_the_door_takes_only_its_own_file_away(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    door = Door(path)
    assert holder(path) is not None
    path.unlink()
    path.write_text("somebody else's")
    door.close()
    assert path.exists()
    assert holder(tmp_path / "none.sock") is None
