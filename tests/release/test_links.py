import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.e2e.control_plane import free_port
from tests.release.links import Answer, asked, documents, links
from tests.release.test_pins import ROOT


class Site(BaseHTTPRequestHandler):
    """Answers /CODE with that code."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_link_is_dead_only_where_the_site_says_so(site: str) -> None:
    assert asked(f"{site}/200") is Answer.THERE
    assert asked(f"{site}/404") is asked(f"{site}/410") is Answer.DEAD
    assert asked(f"{site}/403") is asked(f"{site}/503") is Answer.UNKNOWN
    assert asked(f"http://127.0.0.1:{free_port()}/") is Answer.UNREACHABLE


def test_links_to_other_sites_are_found_in_markdown() -> None:
    text = "See [one](https://a.example/b?c=d#e), [two](two.md) and `https://c.example`."
    assert links(text) == {"https://a.example/b?c=d#e"}


@pytest.mark.release
def test_the_documents_link_to_pages_that_are_there() -> None:
    found = {
        url: document.name for document in documents(ROOT) for url in links(document.read_text())
    }
    assert found
    answers = {url: asked(url) for url in found}
    for url, answer in answers.items():
        print(f"{found[url]}: {url}: {answer.value}")
    if set(answers.values()) == {Answer.UNREACHABLE}:
        pytest.skip("links to other sites are not checked: this machine reaches none of them")
    # Where others answer, a site that does not is gone.
    bad = {Answer.DEAD, Answer.UNREACHABLE}
    assert [url for url, answer in answers.items() if answer in bad] == []
