"""Bounds on connections: who may have how many, and which ends first when there are too many."""

import ipaddress
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

#: An address always has this many: every API server may be behind one.
SHARE = 100
# Addresses that are remembered because they sent a review.
_KNOWN = 1024


class Member(Protocol):
    """A connection, as far as room is concerned."""

    peer: str
    held: int

    def gives_way(self) -> bool:
        """Return whether it may end now: no complete request on it is being answered."""


M = TypeVar("M", bound=Member)


class _Peer(Generic[M]):
    __slots__ = ("fresh", "kept")

    def __init__(self) -> None:
        # In the order of arrival.
        self.fresh: dict[M, None] = {}
        self.kept: dict[M, None] = {}


class Room(Generic[M]):
    """Counts connections, which are fresh at first, and kept once they carried a review.

    A fresh connection may be closed for another at any time: first the oldest of the peer that has
    most. A kept connection ends with an answer that says so, or by its client, because an API
    server does not retry a POST whose connection was being closed. So the number of kept ones is
    limited such that newcomers always find room, and a peer keeps no more than is left for others,
    but at least `SHARE`. A connection that is not kept closes after its answer, which has
    ``Connection: close``.

    Args:
        fresh: most connections that carried no review yet, TLS handshakes included.
        kept: most connections that did.
    """

    def __init__(self, fresh: int, kept: int) -> None:
        self._fresh_limit = fresh
        self._kept_limit = kept
        self._fresh = 0
        self._kept = 0
        self._peers: dict[str, _Peer[M]] = {}
        self._known: OrderedDict[str, None] = OrderedDict()
        # Peers by their number of fresh connections, so that the heaviest is at hand in a flood.
        self._by_fresh: dict[int, dict[str, None]] = {}
        self._most = 0

    def __len__(self) -> int:
        return self._fresh + self._kept

    def enter(self, member: M) -> M | None:
        """Count a new connection in, and return the one that must end for it, counted out.

        None if there is room; the new one itself if no other gives way.
        """
        peer = self._peers.get(member.peer)
        if peer is None:
            peer = self._peers[member.peer] = _Peer()
        peer.fresh[member] = None
        self._changed(member.peer, peer, len(peer.fresh) - 1)
        self._fresh += 1
        if self._fresh <= self._fresh_limit:
            return None
        ends = self.weakest(member) or member
        self.leave(ends)
        return ends

    def leave(self, member: M) -> None:
        """Count a connection out; does nothing if it is not counted in."""
        peer = self._peers.get(member.peer)
        if peer is None:
            return
        if member in peer.fresh:
            self._remove_fresh(member, peer)
        elif member in peer.kept:
            del peer.kept[member]
            self._kept -= 1
        if not peer.fresh and not peer.kept:
            del self._peers[member.peer]

    def keep(self, member: M) -> bool:
        """Note that a connection carried its first review; return whether it stays open."""
        peer = self._peers.get(member.peer)
        if peer is None or member not in peer.fresh:
            return False
        self._known[member.peer] = None
        self._known.move_to_end(member.peer)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        if self._kept >= self._kept_limit or self._exceeds(len(peer.kept) + 1):
            return False
        self._remove_fresh(member, peer)
        peer.kept[member] = None
        self._kept += 1
        return True

    def stays(self, member: M) -> bool:
        """Return whether a kept connection stays open after one more review."""
        peer = self._peers.get(member.peer)
        if peer is None:
            return False
        kept = len(peer.kept)
        # Asked for each review, so the usual case takes no further call.
        return kept <= SHARE or not self._exceeds(kept)

    def _exceeds(self, kept: int) -> bool:
        """Return whether a peer would keep more connections than it leaves for others.

        A third of all is reserved for the shares.
        """
        return kept > SHARE and kept > self._kept_limit * 2 // 3 - self._kept

    def _remove_fresh(self, member: M, peer: _Peer[M]) -> None:
        del peer.fresh[member]
        self._changed(member.peer, peer, len(peer.fresh) + 1)
        self._fresh -= 1

    def _changed(self, name: str, peer: _Peer[M], before: int) -> None:
        now = len(peer.fresh)
        if before:
            del self._by_fresh[before][name]
            if not self._by_fresh[before]:
                del self._by_fresh[before]
        if now:
            self._by_fresh.setdefault(now, {})[name] = None
        self._most = max(self._most, now)

    def weakest(self, spared: M | None = None) -> M | None:
        """Return the fresh connection that ends first, or None if none gives way.

        Peers that sent a review and are within their share come last.

        Args:
            spared: never returned.
        """
        while self._most and self._most not in self._by_fresh:
            self._most -= 1
        for last in (False, True):
            for number in range(self._most, 0, -1):
                for name in self._by_fresh.get(number, ()):
                    if last is not self._has_share(name):
                        continue
                    for member in self._peers[name].fresh:
                        if member is not spared and member.gives_way():
                            return member
        return None

    def _has_share(self, name: str) -> bool:
        peer = self._peers[name]
        known = bool(peer.kept) or name in self._known
        return known and len(peer.fresh) + len(peer.kept) <= SHARE

    def hoarder(self) -> M | None:
        """Return the connection that holds most bytes of an incomplete request.

        Fresh ones come first, and of those the peer that holds most.
        """
        for state in ("fresh", "kept"):
            found: list[M] = []
            most = 0
            for peer in self._peers.values():
                holders = [m for m in getattr(peer, state) if m.held and m.gives_way()]
                held = sum(member.held for member in holders)
                if held > most:
                    most, found = held, holders
            if found:
                return max(found, key=lambda member: member.held)
        return None


def peer_of(address: str) -> str:
    """Return whom an address stands for: an IPv6 /64 belongs to one host."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
