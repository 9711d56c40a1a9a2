"""What we rely on of aiohttp's internals: with a version that changes one, a test fails."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

REQUEST = b"POST /p HTTP/1.1\r\nHost: h\r\nX-Y:  z \r\nContent-Length: 4\r\n\r\nbody"


class Transport(asyncio.Transport):
    """Takes what is written, and does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Handler(RequestHandler):
    """Notes what it is told."""

    def __init__(self, server: web.Server, **kwargs: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **kwargs)
        self.finished: list[tuple[str, bytes, bool]] = []
        self.resumed: list[tuple[Any, ...]] = []

    def finish_response(self, request: Any, resp: Any, start_time: Any) -> Any:
        assert isinstance(self.transport, Transport)
        self.finished.append((request.path, self.transport.written, self._request_in_progress))
        return super().finish_response(request, resp, start_time)

    def resume_reading(self, resume_parser: bool = True) -> None:
        self.resumed.append((self._reading_paused, self._buffer_paused))
        super().resume_reading(resume_parser)


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text=(await request.read()).decode())


def connected(handle: Any = answer) -> tuple[Handler, Transport]:
    handler = Handler(web.Server(handle), access_log=None)
    transport = Transport()
    handler.connection_made(transport)
    return handler, transport


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_head_is_counted_and_queued_as_soon_as_it_is_whole() -> None:
    handler, _ = connected()
    assert handler._request_count == 0
    handler.data_received(REQUEST[:20])
    assert (handler._request_count, len(handler._messages)) == (0, 0)
    handler.data_received(REQUEST[20:-2])
    assert (handler._request_count, len(handler._messages)) == (1, 1)
    message, payload = handler._messages[-1]
    assert isinstance(message, RawRequestMessage)
    assert message.headers["Content-Length"] == "4"
    assert message.chunked is False
    assert (payload.is_eof(), payload.total_bytes) == (False, 2)
    handler.data_received(REQUEST[-2:])
    assert (payload.is_eof(), payload.total_bytes) == (True, 4)
    handler.force_close()
    await turns()


async def test_several_heads_in_one_piece_are_all_counted() -> None:
    handler, _ = connected()
    handler.data_received(REQUEST * 3 + REQUEST[:10])
    assert (handler._request_count, len(handler._messages)) == (3, 3)
    handler.force_close()
    await turns()


async def test_a_request_without_a_body_has_a_body_that_is_over() -> None:
    handler, _ = connected()
    handler.data_received(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    _, payload = handler._messages[-1]
    assert (payload.is_eof(), payload.total_bytes) == (True, 0)
    handler.force_close()
    await turns()


async def test_a_chunked_request_says_so() -> None:
    handler, _ = connected()
    handler.data_received(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    message, payload = handler._messages[-1]
    assert isinstance(message, RawRequestMessage)
    assert message.chunked is True
    assert not payload.is_eof()
    handler.force_close()
    await turns()


async def test_each_answer_passes_through_finish_response_before_anything_is_written() -> None:
    handler, transport = connected()
    handler.data_received(REQUEST)
    await turns()
    assert handler.finished == [("/p", b"", True)]
    assert transport.written.startswith(b"HTTP/1.1 200 ")
    assert not handler._request_in_progress
    assert not handler._messages
    # What aiohttp itself answers, too.
    handler.data_received(b"\x00\x01\r\n\r\n")
    message, _ = handler._messages[-1]
    assert not isinstance(message, RawRequestMessage)
    assert isinstance(message.exc, Exception)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handler.logger, "exception", lambda *args, **kwargs: None)
        await turns()
    assert len(handler.finished) == 2
    assert transport.closed


async def test_an_answer_with_force_close_ends_the_connection() -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response()
        response.force_close()
        return response

    handler, transport = connected(handle)
    handler.data_received(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    await turns()
    assert b"Connection: close\r\n" in transport.written
    assert transport.closed


async def test_a_request_knows_its_connection_and_its_head() -> None:
    found: list[Any] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        found.append((request.protocol, request.content, request.raw_path, request.raw_headers))
        return web.Response()

    handler, _ = connected(handle)
    handler.data_received(REQUEST)
    _, payload = handler._messages[-1]
    await turns()
    protocol, content, path, headers = found[0]
    assert protocol is handler
    assert content is payload
    assert path == "/p"
    assert (b"X-Y", b"z") in headers
    handler.force_close()
    await turns()


async def test_what_follows_an_upgrade_is_not_parsed() -> None:
    handler, _ = connected()
    handler.data_received(
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + REQUEST
    )
    assert handler._upgraded
    assert handler._request_count == 1
    handler.force_close()
    await turns()


async def test_writing_is_known_to_be_held_up() -> None:
    handler, _ = connected()
    assert not handler.writing_paused
    handler.pause_writing()
    assert handler.writing_paused
    handler.resume_writing()
    assert not handler.writing_paused
    handler.force_close()
    await turns()


async def test_the_end_of_a_body_resumes_reading_that_was_not_held_up() -> None:
    handler, _ = connected()
    handler.data_received(REQUEST)
    assert (False, False) in handler.resumed
    handler.force_close()
    await turns()


async def test_force_close_closes_and_the_loop_then_tells_the_end() -> None:
    handler, transport = connected()
    await turns()
    assert handler.transport is transport
    handler.force_close()
    assert transport.closed
    assert handler.transport is None
    handler.connection_lost(None)
    await turns()


class Bare:
    """Has what an Answer has, and nothing else of a response."""

    keep_alive = True

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.calls: list[str] = []
        self.transport: asyncio.Transport | None = None

    async def prepare(self, request: web.BaseRequest) -> None:
        self.calls.append("prepare")
        self.transport = request.transport

    async def write_eof(self) -> None:
        self.calls.append("write_eof")
        assert self.transport is not None
        self.transport.write(self.body)


async def test_of_an_answer_nothing_is_used_but_keep_alive_prepare_and_write_eof() -> None:
    answers: list[Bare] = []

    async def bare(request: web.BaseRequest) -> Any:
        await request.read()
        answers.append(Bare(b"whole"))
        return answers[-1]

    handler, transport = connected(bare)
    for _ in range(2):
        handler.data_received(REQUEST)
        await turns()
    assert [one.calls for one in answers] == [["prepare", "write_eof"]] * 2
    assert transport.written == b"wholewhole"
    assert not transport.closed


async def test_a_body_that_is_over_is_read_without_waiting() -> None:
    found: list[tuple[bool, bool, bytes]] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        content = request.content
        over, at_end = content.is_eof(), content.at_eof()
        found.append((over, at_end, content.read_nowait(-1) if over else b""))
        return await answer(request)

    handler, _ = connected(note)
    handler.data_received(REQUEST)
    await turns()
    handler.data_received(REQUEST[:-1])
    await turns()
    handler.data_received(REQUEST[-1:])
    await turns()
    assert found == [(True, False, b"body"), (False, False, b"")]


async def test_a_server_keeps_the_settings_of_its_connections() -> None:
    server = web.Server(answer, keepalive_timeout=7)
    assert server._kwargs["keepalive_timeout"] == 7
