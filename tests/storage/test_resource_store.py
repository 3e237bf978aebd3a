"""The contract of `ResourceStore`, on every implementation."""

import asyncio
import base64
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moorage.errors import ValidationException
from moorage.resources import Endpoint, EndpointConfig, EndpointStatus, Model
from moorage.storage.base import ListQuery, R, ResourceStore
from moorage.storage.database import open_database
from moorage.storage.resources import SqlResourceStore

from .samples import ACCOUNT, MORNING, config, endpoint, model

CREATING, IN_SERVICE, UPDATING, DELETING, FAILED = (
    EndpointStatus.CREATING,
    EndpointStatus.IN_SERVICE,
    EndpointStatus.UPDATING,
    EndpointStatus.DELETING,
    EndpointStatus.FAILED,
)


async def names(
    store: ResourceStore, kind: type[R], query: ListQuery, account_id: str = ACCOUNT
) -> list[str]:
    """All pages."""
    found: list[str] = []
    while True:
        page = await store.page(kind, account_id, query)
        assert len(page.items) <= query.max_results
        found += [item.name for item in page.items]
        if page.next_token is None:
            return found
        assert len(page.items) == query.max_results
        query = dataclasses.replace(query, next_token=page.next_token)


@pytest.mark.parametrize(
    "resource",
    [model("Churn-1"), config("Churn-1"), endpoint("Churn-1")],
    ids=["model", "config", "endpoint"],
)
async def test_what_was_created_comes_back_equal(store: ResourceStore, resource: Any) -> None:
    assert await store.create(resource, {})
    assert await store.get(type(resource), ACCOUNT, "Churn-1") == resource


async def test_every_json_value_survives(store: ResourceStore) -> None:
    definition = {
        "Text": 'ü "quoted" \\ \u0000 \n 😀',
        "Number": 1,
        "Float": 1.0,
        "Large": 2**53 + 1,
        "Nothing": None,
        "Yes": True,
        "List": [1, [2], {"a": {}}],
        "Order": {"z": 1, "a": 2},
    }
    await store.create(model(definition=definition), {})
    found = await store.get(Model, ACCOUNT, "churn")
    assert found is not None
    assert found.definition == definition
    assert isinstance(found.definition["Float"], float)
    assert list(found.definition["Order"]) == ["z", "a"]


async def test_times_keep_microseconds_and_become_utc(store: ResourceStore) -> None:
    local = MORNING.astimezone(datetime.strptime("+0530", "%z").tzinfo)
    await store.create(model(creation_time=local), {})
    found = await store.get(Model, ACCOUNT, "churn")
    assert found is not None
    assert found.creation_time == MORNING
    assert found.creation_time.microsecond == 123456


async def test_names_are_unique_per_account_and_kind_whatever_their_case(store: ResourceStore) -> None:
    assert await store.create(endpoint("Churn"), {})
    assert not await store.create(endpoint("Churn"), {})
    assert not await store.create(endpoint("cHURN"), {})
    assert await store.create(endpoint("Churn", account_id="444455556666"), {})
    assert await store.create(config("Churn"), {})
    assert await store.create(model("churn"), {})


async def test_of_many_creating_one_name_at_once_one_wins(store: ResourceStore) -> None:
    created = await asyncio.gather(*(store.create(endpoint("Churn"), {"n": str(n)}) for n in range(10)))
    assert sorted(created) == [False] * 9 + [True]
    assert await store.get_tags(endpoint("Churn").arn) == {"n": str(created.index(True))}


async def test_get_needs_the_exact_name_and_account(store: ResourceStore) -> None:
    await store.create(endpoint("Churn"), {})
    assert await store.get(Endpoint, ACCOUNT, "churn") is None
    assert await store.get(Endpoint, "444455556666", "Churn") is None
    assert await store.get(Model, ACCOUNT, "Churn") is None


async def test_stored_values_are_shared_with_nobody(store: ResourceStore) -> None:
    definition = {"a": [1]}
    await store.create(model(definition=definition), {})
    definition["a"].append(2)
    found = await store.get(Model, ACCOUNT, "churn")
    assert found is not None
    assert found.definition == {"a": [1]}


# --- Delete --------------------------------------------------------------------------------------------


async def test_delete_removes_the_resource_and_its_tags(store: ResourceStore) -> None:
    await store.create(model(), {"team": "red"})
    assert await store.delete(model())
    assert await store.get(Model, ACCOUNT, "churn") is None
    assert await store.get_tags(model().arn) is None
    assert not await store.delete(model())
    assert await store.create(model(), {})
    assert await store.get_tags(model().arn) == {}


async def test_delete_spares_a_later_resource_of_the_same_name(store: ResourceStore) -> None:
    await store.create(model(minutes=1), {})
    assert not await store.delete(model(minutes=0))
    assert await store.get(Model, ACCOUNT, "churn") == model(minutes=1)


# --- Pages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort_by", ["Name", "CreationTime", "Status"])
@pytest.mark.parametrize("sort_order", ["Ascending", "Descending"])
async def test_pages_hold_everything_once_and_in_order(
    store: ResourceStore, sort_by: str, sort_order: str
) -> None:
    statuses = [IN_SERVICE, FAILED, CREATING, UPDATING]
    made = [
        # Names out of order, four items to a creation time, mixed case and hyphens.
        endpoint(f"{'aBc'[n % 3]}{'-' * (n % 2)}{(n * 101) % 250:03}", minutes=n // 4, status=statuses[n % 4])
        for n in range(250)
    ]
    await asyncio.gather(*(store.create(item, {}) for item in made))
    keys = {
        "Name": lambda item: (item.name,),
        "CreationTime": lambda item: (item.creation_time, item.name),
        "Status": lambda item: (str(item.status), item.name),
    }
    expected = [item.name for item in sorted(made, key=keys[sort_by], reverse=sort_order == "Descending")]
    query = ListQuery(sort_by=sort_by, sort_order=sort_order, max_results=100)  # type: ignore[arg-type]
    assert await names(store, Endpoint, query) == expected
    assert await names(store, Endpoint, dataclasses.replace(query, max_results=7)) == expected


async def test_a_last_page_that_is_full_has_no_token(store: ResourceStore) -> None:
    for n in range(4):
        await store.create(model(f"m{n}", minutes=n), {})
    first = await store.page(Model, ACCOUNT, ListQuery(max_results=2))
    second = await store.page(Model, ACCOUNT, ListQuery(max_results=2, next_token=first.next_token))
    assert [item.name for item in second.items] == ["m1", "m0"]
    assert second.next_token is None


async def test_pages_go_on_after_a_deleted_item_and_ignore_new_ones_before(store: ResourceStore) -> None:
    for n in range(5):
        await store.create(model(f"m{n}", minutes=n), {})
    query = ListQuery(sort_by="Name", sort_order="Ascending", max_results=2)
    first = await store.page(Model, ACCOUNT, query)
    await store.delete(first.items[-1])
    await store.create(model("a-new-one"), {})
    assert await names(store, Model, dataclasses.replace(query, next_token=first.next_token)) == [
        "m2",
        "m3",
        "m4",
    ]


async def test_filters(store: ResourceStore) -> None:
    for n, name in enumerate(["Red-1", "red-2", "blue-1", "green"]):
        await store.create(endpoint(name, minutes=n), {})
    blue = await store.get(Endpoint, ACCOUNT, "blue-1")
    assert blue is not None
    await store.transition(
        blue, [CREATING], status=IN_SERVICE, last_modified_time=MORNING + timedelta(hours=1)
    )

    async def found(**filters: object) -> list[str]:
        return await names(store, Endpoint, ListQuery(sort_order="Ascending", max_results=1, **filters))  # type: ignore[arg-type]

    assert await found(name_contains="RED") == ["Red-1", "red-2"]
    assert await found(name_contains="-1") == ["Red-1", "blue-1"]
    assert await found(creation_time_after=MORNING + timedelta(minutes=2)) == ["blue-1", "green"]
    assert await found(creation_time_before=MORNING + timedelta(minutes=2)) == ["Red-1", "red-2"]
    assert await found(last_modified_time_after=MORNING + timedelta(hours=1)) == ["blue-1"]
    assert await found(last_modified_time_before=MORNING + timedelta(minutes=3)) == ["Red-1", "red-2"]
    assert await found(status_equals="InService") == ["blue-1"]
    assert await found(name_contains="red", status_equals="InService") == []


async def test_name_contains_has_no_wildcards(store: ResourceStore) -> None:
    await store.create(model("churn"), {})
    assert await names(store, Model, ListQuery(name_contains="%")) == []
    assert await names(store, Model, ListQuery(name_contains="_")) == []


async def test_lists_show_one_account_only(store: ResourceStore) -> None:
    await store.create(model("ours"), {})
    await store.create(model("theirs", account_id="444455556666"), {})
    assert await names(store, Model, ListQuery()) == ["ours"]


async def test_all_endpoints_are_those_of_every_account(store: ResourceStore) -> None:
    ours, theirs = endpoint("ours"), endpoint("theirs", account_id="444455556666")
    await store.create(ours, {})
    await store.create(theirs, {})
    assert {item.name for item in await store.all_endpoints()} == {"ours", "theirs"}
    assert ours in await store.all_endpoints()
    assert await store.endpoint_statuses() == {
        (ours.account_id, ours.status): 1,
        ("444455556666", theirs.status): 1,
    }


# --- Page tokens ---------------------------------------------------------------------------------------


async def first_token(store: ResourceStore) -> str:
    for n in range(3):
        await store.create(model(f"m{n}", minutes=n), {})
    token = (await store.page(Model, ACCOUNT, ListQuery(max_results=1))).next_token
    assert token is not None
    return token


@pytest.mark.parametrize("bad", ["", "nonsense", "%%%%", "AAAA", "é", "QUFB" * 30])
async def test_a_made_up_token_is_refused(store: ResourceStore, bad: str) -> None:
    with pytest.raises(ValidationException, match="Invalid pagination token because"):
        await store.page(Model, ACCOUNT, ListQuery(next_token=bad))


async def test_a_changed_token_is_refused(store: ResourceStore) -> None:
    token = await first_token(store)
    raw = base64.urlsafe_b64decode(token)
    for changed in (raw[:-3], raw + b" ", raw.replace(b"m2", b"m1"), bytes([raw[0] ^ 1]) + raw[1:]):
        assert changed != raw
        with pytest.raises(ValidationException):
            bad = base64.urlsafe_b64encode(changed).decode()
            await store.page(Model, ACCOUNT, ListQuery(next_token=bad))


async def test_a_token_is_good_for_its_own_query_only(store: ResourceStore) -> None:
    token = await first_token(store)
    assert (await store.page(Model, ACCOUNT, ListQuery(max_results=99, next_token=token))).items
    for other in (
        ListQuery(next_token=token, sort_order="Ascending"),
        ListQuery(next_token=token, sort_by="Name"),
        ListQuery(next_token=token, name_contains="m"),
        ListQuery(next_token=token, creation_time_after=MORNING),
    ):
        with pytest.raises(ValidationException):
            await store.page(Model, ACCOUNT, other)
    with pytest.raises(ValidationException):
        await store.page(EndpointConfig, ACCOUNT, ListQuery(next_token=token))
    with pytest.raises(ValidationException):
        await store.page(Model, "444455556666", ListQuery(next_token=token))


# --- Transitions ---------------------------------------------------------------------------------------


async def test_a_transition_changes_what_is_named_and_nothing_else(store: ResourceStore) -> None:
    await store.create(endpoint(), {"team": "red"})
    before = datetime.now(UTC)
    changed = await store.transition(
        endpoint(),
        [CREATING],
        status=IN_SERVICE,
        deployment_id="d1",
        target_deployment_id=None,
        target_config_name=None,
        deployed={"ProductionVariants": [{"VariantName": "A", "When": MORNING}]},
    )
    assert changed is not None
    assert before <= changed.last_modified_time <= datetime.now(UTC)
    assert changed == endpoint(
        status=IN_SERVICE,
        deployment_id="d1",
        target_deployment_id=None,
        target_config_name=None,
        deployed={"ProductionVariants": [{"VariantName": "A", "When": MORNING.isoformat()}]},
        last_modified_time=changed.last_modified_time,
    )
    assert await store.get(Endpoint, ACCOUNT, "churn") == changed
    assert await store.get_tags(endpoint().arn) == {"team": "red"}


async def test_a_transition_needs_an_expected_status(store: ResourceStore) -> None:
    await store.create(endpoint(), {})
    assert await store.transition(endpoint(), [IN_SERVICE, FAILED], status=UPDATING) is None
    assert await store.transition(endpoint(), [], status=UPDATING) is None
    assert await store.get(Endpoint, ACCOUNT, "churn") == endpoint()


async def test_a_transition_needs_the_deployment_that_was_seen(store: ResourceStore) -> None:
    await store.create(endpoint(), {})
    in_service = await store.transition(
        endpoint(), [CREATING], status=IN_SERVICE, deployment_id="d1", target_deployment_id=None
    )
    assert in_service is not None
    updating = await store.transition(in_service, [IN_SERVICE], status=UPDATING, target_deployment_id="d2")
    assert updating is not None
    # An actor that still works on an earlier deployment must not end this one.
    assert await store.transition(in_service, [UPDATING], status=IN_SERVICE) is None
    late = dataclasses.replace(updating, target_deployment_id="d0")
    assert await store.transition(late, [UPDATING], status=IN_SERVICE) is None
    assert await store.transition(updating, [UPDATING], status=IN_SERVICE) is not None


async def test_a_transition_does_not_touch_a_later_endpoint_of_the_same_name(store: ResourceStore) -> None:
    await store.create(endpoint(minutes=1), {})
    assert await store.transition(endpoint(minutes=0), [CREATING], status=FAILED) is None


async def test_a_transition_of_what_is_gone_is_none(store: ResourceStore) -> None:
    assert await store.transition(endpoint(), [CREATING], status=FAILED) is None


async def test_of_many_transitions_from_one_state_one_wins(store: ResourceStore) -> None:
    await store.create(endpoint(), {})
    ready = await store.transition(endpoint(), [CREATING], status=IN_SERVICE, target_deployment_id=None)
    assert ready is not None
    results = await asyncio.gather(
        *(
            store.transition(ready, [IN_SERVICE], status=DELETING)
            if n % 2
            else store.transition(ready, [IN_SERVICE], status=UPDATING, target_deployment_id=f"d{n}")
            for n in range(20)
        )
    )
    winners = [result for result in results if result is not None]
    assert len(winners) == 1
    assert await store.get(Endpoint, ACCOUNT, "churn") == winners[0]


# --- Tags ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", [model(), config(), endpoint()], ids=["model", "config", "endpoint"])
async def test_tags_by_arn(store: ResourceStore, resource: Model | EndpointConfig | Endpoint) -> None:
    await store.create(resource, {"team": "red"})
    assert await store.get_tags(resource.arn) == {"team": "red"}
    assert await store.update_tags(resource.arn, lambda tags: {**tags, "ünit": ""}) == {
        "team": "red",
        "ünit": "",
    }
    assert await store.get_tags(resource.arn) == {"team": "red", "ünit": ""}
    assert await store.update_tags(resource.arn, lambda tags: {}) == {}


async def test_tags_of_nothing(store: ResourceStore) -> None:
    await store.create(model(), {})
    for arn in (config().arn, "arn:aws:sagemaker:us-east-1:111122223333:cluster/x", "nonsense", ""):
        assert await store.get_tags(arn) is None
        assert await store.update_tags(arn, lambda tags: {"a": "b"}) is None


async def test_no_tag_is_lost_between_many_writers(store: ResourceStore) -> None:
    await store.create(model(), {})
    await asyncio.gather(
        *(store.update_tags(model().arn, lambda tags, n=n: {**tags, str(n): "x"}) for n in range(20))  # type: ignore[misc]
    )
    assert await store.get_tags(model().arn) == {str(n): "x" for n in range(20)}


async def test_a_change_of_tags_that_raises_changes_nothing(store: ResourceStore) -> None:
    await store.create(model(), {"team": "red"})

    def refuse(tags: object) -> dict[str, str]:
        raise ValidationException("no")

    with pytest.raises(ValidationException):
        await store.update_tags(model().arn, refuse)
    assert await store.get_tags(model().arn) == {"team": "red"}


async def test_an_endpoint_has_one_policy_at_most(store: ResourceStore) -> None:
    given = endpoint("Churn")
    assert not await store.put_policy(given, "{}", ())
    await store.create(given, {})
    await store.create(endpoint("other"), {})
    assert await store.get_policy(given.arn) is None
    await store.delete_policy(given)
    assert await store.put_policy(given, '{"Id": "1"}', ())
    assert await store.put_policy(given, '{"Id": "2"}', (DELETING, FAILED))
    assert await store.get_policy(given.arn) == '{"Id": "2"}'
    assert await store.all_policies() == {given.arn: '{"Id": "2"}'}
    assert await store.get(Endpoint, ACCOUNT, "Churn") == given
    await store.delete_policy(given)
    assert await store.all_policies() == {}


async def test_tags_and_policy_are_read_together(store: ResourceStore) -> None:
    given = endpoint("Churn")
    assert await store.tags_and_policy(given.arn) == (None, None)
    await store.create(given, {"team": "red"})
    assert await store.tags_and_policy(given.arn) == ({"team": "red"}, None)
    await store.put_policy(given, "{}", ())
    assert await store.tags_and_policy(given.arn) == ({"team": "red"}, "{}")
    await store.create(model(), {})
    assert await store.tags_and_policy(model().arn) == ({}, None)
    assert await store.tags_and_policy(f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:app/none") == (None, None)


@pytest.mark.parametrize("status", [DELETING, FAILED])
async def test_statuses_in_which_an_endpoint_gets_no_policy(
    store: ResourceStore, status: EndpointStatus
) -> None:
    given = endpoint()
    await store.create(given, {})
    await store.put_policy(given, "before", (DELETING, FAILED))
    await store.transition(given, (CREATING,), status=status)
    assert not await store.put_policy(given, "after", (DELETING, FAILED))
    assert await store.get_policy(given.arn) == "before"


async def test_a_policy_goes_with_its_endpoint(store: ResourceStore) -> None:
    old, new = endpoint(), endpoint(minutes=1)
    await store.create(old, {})
    await store.put_policy(old, "old", ())
    await store.delete(old)
    assert await store.all_policies() == {}
    await store.create(new, {})
    assert not await store.put_policy(old, "old", ()), "it is another endpoint"
    assert await store.get_policy(new.arn) is None
    await store.put_policy(new, "new", ())
    await store.delete_policy(old)
    assert await store.get_policy(new.arn) == "new"


async def test_an_endpoint_is_found_by_its_arn(store: ResourceStore) -> None:
    given = endpoint("Churn")
    await store.create(given, {})
    assert given.arn.endswith("/churn")
    assert await store.endpoint_of(given.arn) == given
    assert await store.endpoint_of(given.arn + "-2") is None
    await store.create(model("churn"), {})
    assert await store.endpoint_of(model("churn").arn) is None


async def test_changes_of_policies_are_told_once_committed(database_url: str) -> None:
    database = await open_database(database_url)
    told: list[int] = []
    store = SqlResourceStore(database, on_policies_change=lambda: told.append(1))
    given = endpoint()
    await store.create(given, {})
    assert not told
    await store.put_policy(given, "{}", ())
    await store.delete_policy(given)
    await store.delete(given)
    assert len(told) == 3
    assert not await store.put_policy(given, "{}", ())
    await store.delete_policy(given)
    assert len(told) == 3
    await database.close()


# --- Tags of endpoints ---------------------------------------------------------------------------------


async def test_the_tags_of_all_endpoints(store: ResourceStore) -> None:
    tagged, plain = endpoint("tagged"), endpoint("plain")
    await store.create(tagged, {"team": "ml"})
    await store.create(plain, {})
    await store.create(model("tagged"), {"team": "other"})
    assert await store.all_endpoint_tags() == {tagged.arn: {"team": "ml"}}
    await store.update_tags(plain.arn, lambda tags: {"team": "new"})
    await store.update_tags(tagged.arn, lambda tags: {})
    assert await store.all_endpoint_tags() == {plain.arn: {"team": "new"}}
    await store.delete(plain)
    assert await store.all_endpoint_tags() == {}


async def test_changes_of_tags_of_endpoints_are_told(sqlite_url: str) -> None:
    database = await open_database(sqlite_url)
    told: list[str] = []
    store = SqlResourceStore(database, on_tags_change=told.append)
    await store.create(endpoint("plain"), {})
    await store.create(model("tagged"), {"team": "ml"})
    await store.update_tags(model("tagged").arn, lambda tags: {})
    assert told == []
    tagged = endpoint("tagged")
    await store.create(tagged, {"team": "ml"})
    await store.update_tags(tagged.arn, lambda tags: {})
    await store.delete(tagged)
    assert told == [tagged.arn] * 3
    await database.close()
