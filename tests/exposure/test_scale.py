"""The work grows with the cluster, and no faster."""

from noderestrict.exposure.run import expose
from noderestrict.exposure.setups import set_ups
from tests.exposure.clusters import world_of
from tests.exposure.large import large
from tests.policy.work import steps

SET_UPS = set_ups()


def work(factor: int) -> int:
    world = world_of(large(6 * factor, 180 * factor, 45 * factor))
    _, count = steps(lambda: expose(world, SET_UPS["in-tree"], SET_UPS.values()))
    return count


def test_twice_the_cluster_takes_about_twice_the_work() -> None:
    assert work(2) < 2.5 * work(1)
