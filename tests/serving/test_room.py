"""Whose connection ends when there is no room."""

import itertools
from dataclasses import dataclass, field

import pytest

from noderestrict.serving.limits import Limits
from noderestrict.serving.room import SHARE, Room, peer_of

_numbers = itertools.count()


@dataclass(eq=False)
class One:
    peer: str
    held: int = 0
    busy: bool = False
    number: int = field(default_factory=lambda: next(_numbers))

    def gives_way(self) -> bool:
        return not self.busy


def enter(room: Room[One], peer: str, number: int, held: int = 0) -> list[One]:
    members = [One(peer, held) for _ in range(number)]
    for member in members:
        assert room.enter(member) is None
    return members


def keep(room: Room[One], peer: str, number: int) -> list[One]:
    members = []
    for _ in range(number):
        one = One(peer)
        room.enter(one)
        if room.keep(one):
            members.append(one)
        else:
            room.leave(one)
    return members


def test_the_oldest_of_the_peer_that_has_most_ends_first() -> None:
    room: Room[One] = Room(5, 0)
    enter(room, "few", 2)
    many = enter(room, "many", 3)
    assert room.enter(One("new")) is many[0]
    # Now two peers have two each, of which the newcomer's is not one.
    assert len(room) == 5


def test_a_flood_from_one_peer_ends_only_its_own() -> None:
    room: Room[One] = Room(50, 0)
    others = [enter(room, f"other-{number}", 1)[0] for number in range(10)]
    ended = [room.enter(One("flood")) for _ in range(1000)]
    assert {one.peer for one in ended if one is not None} == {"flood"}
    assert all(room.enter(One("flood")) not in others for _ in range(10))
    assert len(room) == 50


def test_a_flood_from_many_peers_leaves_a_peer_that_sent_a_review_its_share() -> None:
    room: Room[One] = Room(200, 1000)
    keep(room, "api", 3)
    shaking_hands = enter(room, "api", 50)
    ended = [room.enter(One(f"peer-{number % 150}")) for number in range(3000)]
    assert not {one.peer for one in ended if one is not None} & {"api"}
    assert all(one not in ended for one in shaking_hands)


def test_a_peer_over_its_share_is_one_like_others() -> None:
    room: Room[One] = Room(200, 1000)
    keep(room, "api", SHARE)
    oldest = enter(room, "api", 150)[0]
    enter(room, "other", 50)
    assert room.enter(One("new")) is oldest


def test_what_is_being_answered_does_not_give_way() -> None:
    room: Room[One] = Room(3, 0)
    members = enter(room, "one", 3)
    members[0].busy = members[1].busy = True
    assert room.enter(One("one")) is members[2]
    new = One("two")
    for member in members:
        member.busy = True
    last = room.weakest()
    assert last is not None
    last.busy = True
    assert room.enter(new) is new
    assert len(room) == 3


def test_kept_connections_never_end_for_another() -> None:
    room: Room[One] = Room(4, 100)
    kept = keep(room, "one", 50)
    ended = [room.enter(One("one")) for _ in range(100)]
    assert not set(kept) & {one for one in ended if one is not None}
    assert all(room.stays(one) for one in kept)


def test_one_peer_keeps_no_more_than_is_left_for_others() -> None:
    room: Room[One] = Room(10, 3000)
    assert len(keep(room, "one", 2000)) == 1000
    assert len(keep(room, "two", 2000)) == 500
    assert len(keep(room, "three", 2000)) == 250


def test_what_a_peer_keeps_too_much_ends_with_its_next_review() -> None:
    room: Room[One] = Room(10, 3000)
    first = keep(room, "one", 1000)
    assert room.stays(first[0])
    keep(room, "two", 200)
    assert not room.stays(first[0])


@pytest.mark.parametrize("others", [0, 1, 5, 10])
def test_no_share_is_below_a_hundred(others: int) -> None:
    room: Room[One] = Room(10, 3000)
    for number in range(others):
        keep(room, f"greedy-{number}", 3000)
    kept = keep(room, "api", 3000)
    assert len(kept) >= SHARE
    for number in range(5):
        keep(room, f"later-{number}", 3000)
    for one in kept[SHARE:]:
        room.leave(one)
    assert all(room.stays(one) for one in kept[:SHARE])


def test_kept_connections_are_bounded_whoever_has_them() -> None:
    room: Room[One] = Room(10, 300)
    for number in range(50):
        keep(room, f"peer-{number}", 50)
    assert len(room) == 300
    # A newcomer is served all the same.
    new = One("new")
    assert room.enter(new) is None
    assert not room.keep(new)


def test_whoever_leaves_leaves_nothing() -> None:
    room: Room[One] = Room(5, 5)
    members = [*keep(room, "one", 2), *enter(room, "one", 2), *enter(room, "two", 2)]
    for member in (*members, *members):
        room.leave(member)
    assert len(room) == 0
    assert room.weakest() is None
    assert room._peers == {}
    assert room._by_fresh == {}


def test_the_fresh_connection_that_holds_most_bytes_yields_them_first() -> None:
    room: Room[One] = Room(10, 100)
    kept = keep(room, "api", 1)[0]
    kept.held = 1000
    enter(room, "one", 1, held=50)
    enter(room, "two", 3, held=20)
    largest = enter(room, "two", 1, held=30)[0]
    assert room.hoarder() is largest
    for one in list(room._peers["two"].fresh):
        one.busy = True
    assert room.hoarder().peer == "one"  # type: ignore[union-attr]
    for one in list(room._peers["one"].fresh):
        one.busy = True
    assert room.hoarder() is kept
    kept.busy = True
    assert room.hoarder() is None


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_network_is_one_peer(address: str, peer: str) -> None:
    assert peer_of(address) == peer


@pytest.mark.parametrize("files", [16, 64, 256, 1024, 2048])
def test_few_files_leave_some_for_other_uses(files: int) -> None:
    limits = Limits().within(files)
    assert limits.connections >= files // 2
    assert limits.metrics_connections >= 1
    spare = files - limits.connections - limits.metrics_connections
    assert spare >= min(128, files // 4)


def test_enough_files_change_no_limit() -> None:
    limits = Limits()
    assert limits.within(limits.files) is limits
    assert limits.connections - limits.fresh >= 10 * SHARE
