"""The routing table: what a replacement keeps, and when an instance is drained."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from moorage.routing import selection
from moorage.routing.table import EndpointRoute, Instance, RoutingTable, route_document

ACCOUNT = "000000000000"


class Table:
    """A table, and the ids it has reported as drained."""

    def __init__(self) -> None:
        self.drained: list[str] = []
        self.table = RoutingTable(on_drained=self.drained.append)

    def put(self, *instances: str, name: str = "e", **options: Any) -> EndpointRoute:
        self.table.put(document(*instances, name=name, **options))
        route = self.table.find(ACCOUNT, name)
        assert route is not None
        return route

    def reserve(self, name: str = "e") -> Instance:
        route = self.table.find(ACCOUNT, name)
        assert route is not None
        instance = selection.reserve(route.variants[0])
        assert instance is not None
        return instance


def document(*instances: str, name: str = "e", **options: Any) -> dict[str, Any]:
    """`i-1` is an instance of generation 1, `i-1/2` of generation 2."""
    parsed = [each.partition("/") for each in instances]
    each = [
        {"instance_id": id_, "host": "127.0.0.1", "port": 1, "generation": int(generation or 1)}
        for id_, _, generation in parsed
    ]
    variant = {"name": "v", "weight": 1.0, "container_hostname": "primary", "instances": each}
    return route_document(account_id=ACCOUNT, name=name, region="us-east-1", variants=[variant], **options)


@pytest.fixture
def t() -> Table:
    return Table()


def test_endpoints_are_found_by_account_and_exact_name(t: Table) -> None:
    route = t.put("i-1", name="Echo")
    assert t.table.find(ACCOUNT, "Echo") is route
    assert t.table.find(ACCOUNT, "echo") is None
    assert t.table.find("999999999999", "Echo") is None


def test_endpoints_are_found_by_their_arn(t: Table) -> None:
    t.put("i-1", name="Echo")
    route = t.put("i-1", name="Echo", provisioning=True)
    arn = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/echo"
    assert t.table.find_by_arn(arn) is route
    assert t.table.find_by_arn(arn.replace("us-east-1", "eu-west-1")) is None
    t.table.remove(ACCOUNT, "Echo")
    assert t.table.find_by_arn(arn) is None
    t.put("i-1", name="echo")
    t.table.reset([])
    assert t.table.find_by_arn(arn) is None


def test_an_instance_outlives_the_replacement_of_its_route(t: Table) -> None:
    t.put("i-1")
    instance = t.reserve()
    t.put("i-1", "i-2", provisioning=True)
    assert t.reserve() is not instance  # the count was kept: the other one is less busy
    assert repr(t.table) == "<RoutingTable 1 endpoints, 2 instances, 2 outstanding>"
    assert t.drained == []


def test_an_idle_instance_drains_when_its_route_drops_it(t: Table) -> None:
    t.put("i-1", "i-2")
    t.put("i-2")
    assert t.drained == ["i-1"]
    assert t.table.is_drained("i-1")
    assert not t.table.is_drained("i-2")


def test_a_busy_instance_drains_with_its_last_release(t: Table) -> None:
    t.put("i-1")
    first, second = t.reserve(), t.reserve()
    t.table.remove(ACCOUNT, "e")
    assert first.retired
    t.table.release(first)
    assert t.drained == []
    t.table.release(second)
    assert t.drained == ["i-1"]


def test_an_instance_that_comes_back_before_it_drained_stays(t: Table) -> None:
    t.put("i-1")
    instance = t.reserve()
    t.put("i-2")
    t.put("i-1")
    assert not instance.retired
    t.table.release(instance)
    assert t.drained == ["i-2"]
    assert not t.table.is_drained("i-1")


def test_a_restarted_container_takes_its_id_over(t: Table) -> None:
    t.put("i-1")
    old = t.reserve()
    t.put("i-1/2")
    new = t.reserve()
    assert new is not old
    assert (old.retired, new.retired) == (True, False)
    t.table.release(old)
    assert t.drained == []  # the id lives on
    t.table.release(new)
    t.put()
    assert t.drained == ["i-1"]


def test_a_reset_replaces_everything(t: Table) -> None:
    t.put("i-1", name="a")
    t.put("i-2", name="b")
    before = t.table.complete
    t.table.reset([document("i-2", name="b"), document("i-3", name="c")])
    assert (before, t.table.complete) == (False, True)
    assert t.table.find(ACCOUNT, "a") is None
    assert t.drained == ["i-1"]
    t.table.reset([])
    assert sorted(t.drained) == ["i-1", "i-2", "i-3"]


def test_removing_what_is_not_there_does_nothing(t: Table) -> None:
    t.table.remove(ACCOUNT, "none")
    assert t.table.is_drained("none")
    assert t.drained == []


class TableMachine(RuleBasedStateMachine):
    """Any order of routes, reservations and releases: the counts agree with a plain model of them."""

    def __init__(self) -> None:
        super().__init__()
        self.t = Table()
        self.reserved: list[Instance] = []
        self.routes: dict[str, list[str]] = {}

    @rule(
        name=st.sampled_from("ab"),
        numbers=st.sets(st.integers(1, 3)),
        generation=st.integers(1, 3),
    )
    def put(self, name: str, numbers: set[int], generation: int) -> None:
        instances = [f"{name}-{number}/{generation}" for number in numbers]
        self.routes[name] = instances
        self.t.put(*instances, name=name)

    @rule(name=st.sampled_from("ab"))
    def remove(self, name: str) -> None:
        self.routes.pop(name, None)
        self.t.table.remove(ACCOUNT, name)

    @rule(name=st.sampled_from("ab"))
    def reserve(self, name: str) -> None:
        if self.routes.get(name):
            self.reserved.append(self.t.reserve(name))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.reserved:
            at = data.draw(st.integers(0, len(self.reserved) - 1))
            self.t.table.release(self.reserved.pop(at))

    @invariant()
    def counts_agree(self) -> None:
        for instance in self.reserved:
            assert instance.outstanding == self.reserved.count(instance)
        named = {each.partition("/")[0] for instances in self.routes.values() for each in instances}
        # What is named is there; what is neither named nor busy is not.
        for id_ in named:
            assert not self.t.table.is_drained(id_)
        busy = {instance.instance_id for instance in self.reserved}
        for id_ in set(self.t.drained) - named - busy:
            assert self.t.table.is_drained(id_)


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
