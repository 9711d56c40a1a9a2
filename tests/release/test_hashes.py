from tests.release.hashes import lines


def test_a_requirement_has_the_hash_of_the_file_that_fulfils_it() -> None:
    def installed(name: str, digest: str) -> object:
        archive = {"hashes": {"sha256": digest}}
        return {
            "metadata": {"name": name, "version": "1.2"},
            "download_info": {"archive_info": archive},
        }

    report = {"install": [installed("b", "22"), installed("A", "11")]}
    assert lines(report) == ["A==1.2 --hash=sha256:11", "b==1.2 --hash=sha256:22"]
