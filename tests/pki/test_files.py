"""Files of keys."""

import os
import stat
from pathlib import Path

import pytest

from noderestrict.pki.files import make_own_directory, read_regular, write_atomically


def test_a_key_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "tls.key"
    write_atomically(file, b"secret")
    assert file.read_bytes() == b"secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "tls.crt"
    write_atomically(file, b"old", mode=0o644)
    before = file.stat().st_ino
    write_atomically(file, b"new", mode=0o644)
    assert file.read_bytes() == b"new"
    assert file.stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["tls.crt"]


def test_only_a_regular_file_of_bounded_length_is_read_and_nothing_is_waited_for(
    tmp_path: Path,
) -> None:
    file, fifo, link = tmp_path / "file", tmp_path / "fifo", tmp_path / "link"
    file.write_bytes(b"x" * 10)
    os.mkfifo(fifo)
    link.symlink_to(file)
    assert read_regular(link, 10) == b"x" * 10
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for path, why in (
        (file, "longer than 9 bytes"),
        (fifo, "not a regular file"),
        (tmp_path, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(OSError, match=why) as error:
            read_regular(path, 9)
        assert error.value.filename == str(path)
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def test_a_directory_of_ones_own_is_made_and_may_be_there_already(tmp_path: Path) -> None:
    directory = tmp_path / "own"
    for _ in range(2):
        make_own_directory(directory)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_others_could_fill_is_refused(tmp_path: Path) -> None:
    target, open_ = tmp_path / "target", tmp_path / "open"
    target.mkdir(mode=0o700)
    open_.mkdir()
    open_.chmod(0o777)
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "file").write_text("")
    for name, why in (
        ("link", "a link"),
        ("file", "not a directory"),
        ("open", "others may write into it"),
    ):
        with pytest.raises(OSError, match=why):
            make_own_directory(tmp_path / name)


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(OSError, match="another user"):
        make_own_directory(tmp_path)
