"""Files of keys."""

import stat
from pathlib import Path

from noderestrict.pki.files import write_atomically


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
