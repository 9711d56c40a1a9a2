"""The configuration file is followed: what is applied, what needs a restart, what is rejected."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

import pytest

from noderestrict.agents.agents import Agents
from noderestrict.agents.load import parse
from noderestrict.serving.limits import Limits
from noderestrict.serving.modes import Modes
from noderestrict.serving.reload import Reloaded, follow_configuration
from noderestrict.serving.state import ServerState
from noderestrict.telemetry.metrics import Metrics

RUNNING = Modes("enforce")
AUDIT = Modes("audit")


class Followed:
    """A server that has looked at its file so many times."""

    def __init__(self, looks: Sequence[Callable[[], Reloaded]]) -> None:
        self.metrics = Metrics()
        self.state = ServerState(Limits(), RUNNING)
        self.threads: list[threading.Thread] = []
        self.slept: list[float] = []
        self.changed: list[Agents] = []
        self._looks = list(looks)
        asyncio.run(self._run())

    async def _run(self) -> None:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            if not self._looks:
                raise asyncio.CancelledError

        def read() -> Reloaded:
            self.threads.append(threading.current_thread())
            return self._looks.pop(0)()

        with contextlib.suppress(asyncio.CancelledError):
            await follow_configuration(
                self.state, self.metrics, read, 5.0, changed=self.changed.append, sleep=sleep
            )

    def counted(self, result: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "noderestrict_config_reloads_total", {"result": result}
        )
        assert value is not None
        return value


def look(modes: Modes = RUNNING, **changed: tuple[str, str]) -> Callable[[], Reloaded]:
    return lambda: Reloaded(lambda: modes, changed)


def agents(name: str) -> Agents:
    text = f"agents: [{{name: {name}, users: [{{serviceAccount: a/b}}]}}]"
    return Agents(parse(text.encode(), "agents.yaml").agents)


def rejected(problem: str) -> Callable[[], Reloaded]:
    def read() -> Reloaded:
        raise ValueError(problem)

    return read


def restarts(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    return [
        (record.__dict__["setting"], record.__dict__["running"], record.__dict__["configured"])
        for record in caplog.records
        if record.message == "a changed setting needs a restart"
    ]


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "noderestrict")


def test_the_file_is_read_once_per_poll_beside_the_event_loop() -> None:
    followed = Followed([look(), look(), look()])
    assert len(followed.threads) == 3
    assert threading.main_thread() not in followed.threads
    assert followed.slept == [5.0] * 4


def test_a_changed_setting_that_needs_a_restart_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    followed = Followed([look(port=("8443", "1")), look(port=("8443", "1"))])
    assert restarts(caplog) == [("port", "8443", "1")]
    assert followed.counted("needs_restart") == 1
    assert followed.state.modes == RUNNING


def test_each_setting_and_each_new_value_is_said(caplog: pytest.LogCaptureFixture) -> None:
    followed = Followed(
        [look(port=("8443", "1")), look(port=("8443", "2"), dev=("False", "True")),
         look(port=("8443", "2"), dev=("False", "True"))]
    )  # fmt: skip
    assert restarts(caplog) == [
        ("port", "8443", "1"), ("port", "8443", "2"), ("dev", "False", "True"),
    ]  # fmt: skip
    assert followed.counted("needs_restart") == 3


def test_a_change_that_was_taken_back_is_said_again_when_it_returns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Followed([look(port=("8443", "1")), look(), look(port=("8443", "1"))])
    assert restarts(caplog) == [("port", "8443", "1")] * 2


def test_modes_take_effect_although_other_settings_need_a_restart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    followed = Followed([look(AUDIT, port=("8443", "1"))])
    assert followed.state.modes == AUDIT
    assert followed.counted("loaded") == 1
    assert restarts(caplog) == [("port", "8443", "1")]


def test_a_setting_is_said_even_if_the_modes_cannot_take_effect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def off() -> Modes:
        raise ValueError("'nodes/pod-cidr' is off")

    followed = Followed([lambda: Reloaded(off, {"strict-rules": ("", "nodes/pod-cidr")})])
    assert restarts(caplog) == [("strict-rules", "", "nodes/pod-cidr")]
    assert followed.counted("refused") == 1
    assert followed.state.modes == RUNNING


def test_a_file_that_cannot_be_used_is_said_once_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    followed = Followed([look(AUDIT), rejected("bad"), rejected("bad"), rejected("worse")])
    problems = [
        record.__dict__["problem"]
        for record in caplog.records
        if record.message == "configuration rejected"
    ]
    assert problems == ["bad", "worse"]
    assert followed.counted("refused") == 2
    assert followed.state.modes == AUDIT


def test_a_file_that_is_bad_again_after_a_good_one_is_said_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    followed = Followed([rejected("bad"), look(), rejected("bad")])
    assert followed.counted("refused") == 2


def test_changed_agents_take_effect_and_a_bad_file_keeps_the_last_good_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = agents("one"), agents("two")
    followed = Followed(
        [
            lambda: Reloaded(lambda: RUNNING, agents=first),
            lambda: Reloaded(lambda: RUNNING, agents=agents("one")),
            lambda: Reloaded(lambda: RUNNING, agents=second),
            rejected("agents.yaml: the file is empty"),
        ]
    )
    assert followed.state.in_force.agents is second
    assert followed.changed == [first, second]
    assert [
        record.__dict__["agents"] for record in caplog.records if record.message == "agents"
    ] == [
        ["one"],
        ["two"],
    ]
    assert (followed.counted("loaded"), followed.counted("refused")) == (2, 1)
