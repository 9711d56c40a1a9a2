"""What a kubelet asks of the API server, steadily, with its credential, and what it is answered.

``python -m tests.containers.traffic`` reads a JSON document with ``server``, ``ca``, ``credential``
(files) and ``requests`` from its input, sends each request at its pace until the input ends, and
then prints the answers as JSON.
"""

import base64
import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from tests.containers.cluster import Cluster

#: The name of each of our webhooks ends so.
OURS = ".noderestrict.io"
#: How long one request may take, seconds.
TIMEOUT = 15


@dataclass
class Request:
    """A request that is sent again and again.

    Attributes:
        name: in the figures.
        code: with which it has to be answered; a refusal has to be ours.
        interval: seconds between two of them.
    """

    name: str
    method: str
    path: str
    body: Any
    code: int
    content_type: str = "application/json"
    interval: float = 0.1


@dataclass
class Answers:
    """What a request was answered.

    Attributes:
        right: how many answers were as they have to be.
        wrong: other answers by code: a request that is lost, or a breach.
        by_others: how many of these are refusals of others than us, such as the API server's own
            authorizer while it starts.
        unanswered: how often nobody answered.
        first, last: texts of the first and last wrong answers.
        longest: seconds from the first wrong answer to the next right one, the longest of them.
        slowest: seconds of the slowest right answer.
    """

    right: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    by_others: int = 0
    unanswered: int = 0
    first: str = ""
    last: str = ""
    longest: float = 0
    slowest: float = 0

    @property
    def lost(self) -> int:
        return sum(self.wrong.values())


def refused_by_us(event: dict[str, Any]) -> bool:
    """Tell whether an audit event's request failed at our webhook, or for want of it."""
    return OURS in event.get("responseStatus", {}).get("message", "")


class Traffic:
    """Runs while the context is open; ``answers`` holds the figures afterwards, by request."""

    def __init__(self, cluster: Cluster, node: str, requests: list[Request]) -> None:
        self.answers: dict[str, Answers] = {}
        config = cluster.kubectl.json("config", "view", "--raw")["clusters"][0]["cluster"]
        ca = cluster.folder / "ca.base64"
        ca.write_text(config["certificate-authority-data"])
        credential = cluster.folder / f"{node}-traffic.pem"
        credential.write_text(cluster.credential(node))
        self._document = json.dumps(
            {
                "server": config["server"],
                "ca": str(ca),
                "credential": str(credential),
                "requests": [asdict(one) for one in requests],
            }
        )
        self._command = cluster.local(sys.executable, "-m", "tests.containers.traffic")

    def __enter__(self) -> "Traffic":
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._document + "\n")
        self._process.stdin.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        output, _ = self._process.communicate(timeout=2 * TIMEOUT)
        self.answers = {name: Answers(**one) for name, one in json.loads(output).items()}
        slowest = max(one.slowest for one in self.answers.values())
        print(
            f"  {self.lost()} of {self.answered()} answers lost, the slowest after {slowest:.1f} s"
        )
        for name, one in self.answers.items():
            if one.lost or one.unanswered:
                print(f"  {name}: {one}", flush=True)

    def wait(self, seconds: float) -> None:
        """Let it run for so many seconds."""
        time.sleep(seconds)

    def answered(self) -> int:
        """Return how many requests were answered, rightly or wrongly."""
        return sum(one.right + one.lost for one in self.answers.values())

    def lost_to_us(self) -> int:
        """Return how many requests were answered wrongly, refusals of others left out."""
        return sum(one.lost - one.by_others for one in self.answers.values())

    def lost(self, *names: str) -> int:
        """Return how many of some requests, or of all, were answered wrongly."""
        return sum(self.answers[name].lost for name in names or self.answers)


def send_all(request: Request, connect: "Connect", done: threading.Event) -> Answers:
    """Send a request at its pace until it is over; return what it was answered."""
    answers = Answers()
    wrong: Counter[str] = Counter()
    connection: http.client.HTTPSConnection | None = None
    failing_since: float | None = None
    body, headers = json.dumps(request.body), {"Content-Type": request.content_type}
    due = time.monotonic()
    while not done.wait(max(0, due - time.monotonic())):
        due = max(due + request.interval, time.monotonic() - 1)
        started = time.monotonic()
        try:
            connection = connection or connect()
            connection.request(request.method, request.path, body, headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            answers.unanswered += 1
            connection = None
            continue
        ended = time.monotonic()
        if response.status == request.code and (request.code < 400 or OURS in text):
            answers.right += 1
            answers.slowest = max(answers.slowest, ended - started)
            if failing_since is not None:
                answers.longest = max(answers.longest, ended - failing_since)
                failing_since = None
        else:
            wrong[str(response.status)] += 1
            answers.by_others += response.status >= 400 and OURS not in text
            failing_since = failing_since or started
            answers.first, answers.last = answers.first or text[:300], text[:300]
    answers.wrong = dict(wrong)
    return answers


class Connect:
    """Opens connections with a kubelet's credential."""

    def __init__(self, server: str, ca: str, credential: str) -> None:
        url = urlsplit(server)
        assert url.hostname is not None
        self._host, self._port = url.hostname, url.port
        data = base64.b64decode(Path(ca).read_text()).decode()
        self._context = ssl.create_default_context(cadata=data)
        self._context.load_cert_chain(credential)

    def __call__(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self._host, self._port, context=self._context, timeout=TIMEOUT
        )


def main() -> None:
    document = json.loads(sys.stdin.readline())
    connect = Connect(document["server"], document["ca"], document["credential"])
    done = threading.Event()
    answers: dict[str, Answers] = {}

    def run(request: Request) -> None:
        answers[request.name] = send_all(request, connect, done)

    requests = [Request(**one) for one in document["requests"]]
    threads = [threading.Thread(target=run, args=(one,)) for one in requests]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    done.set()
    for thread in threads:
        thread.join()
    print(json.dumps({name: asdict(one) for name, one in answers.items()}))


if __name__ == "__main__":
    main()
