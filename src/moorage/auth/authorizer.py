"""Who may do what, decided on the way of every request: the compiled policies of all callers, and a cache."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from moorage.auth.policy import (
    Caller,
    CallerKind,
    Context,
    Decision,
    Policy,
    Request,
    Source,
    evaluate_discreetly,
)

ContextFactory = Callable[[], Context]
"""Makes the context of a request. It is called only when a policy needs it."""

_MOST_DECISIONS = 16384
_MOST_ACTIONS = 1024
_LONGEST_RESOURCE = 512
_UNKNOWN = Decision(False, False, Source.IDENTITY, None, "Nothing is known of this caller.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """A caller and the policies that apply to it, as `evaluate` takes them."""

    caller: Caller
    identity: Sequence[Policy] = ()
    boundary: Policy | None = None
    session: Sequence[Policy] | None = None

    def policies(self) -> Iterable[Policy]:
        yield from self.identity
        if self.boundary is not None:
            yield self.boundary
        yield from self.session or ()


Snapshot = Mapping[str, Grants]
"""Grants by the caller's key: whatever names a caller uniquely, such as an access key id."""

ResourcePolicies = Mapping[str, Policy]
"""Resource-based policies by the ARN of what they are attached to. Those of buckets are `BucketPolicies`."""


@dataclass(frozen=True, slots=True)
class BucketPolicy:
    """The policy of a bucket, and the account that the bucket belongs to: an ARN of S3 names none."""

    account_id: str
    policy: Policy


BucketPolicies = Mapping[str, BucketPolicy]
"""By the bucket's name. One is about the bucket and about all objects in it."""

_BUCKET_ARN = "arn:aws:s3:::"
_CREATE_BUCKET = "s3:CreateBucket"
_ON_BUCKET_POLICIES = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})


class Authorizer:
    """Decides by the policies of the callers and resources it was last told.

    A decision is kept, for a caller, an action and a resource, when it cannot depend on anything else of the request.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.resource_tags: dict[str, Mapping[str, str]] = {}
        """Of resources that have tags, by their ARNs. What depends on tags is never kept, so they may change."""
        self._state = _State(snapshot or {}, {}, {}, self.resource_tags)

    def replace(self, snapshot: Snapshot) -> None:
        """Decide by these from now on. Everything kept is dropped, but for what is known of resources."""
        self._replace(snapshot, self._state.resource_policies, self._state.bucket_policies)

    def adopt(self, other: "Authorizer") -> None:
        """Decide by the callers that another one knows, which is not used any more."""
        self.replace(other._state.snapshot)

    def replace_resource_policies(self, policies: ResourcePolicies) -> None:
        """Decide by these from now on, for the callers known. No decision is kept."""
        self._replace(self._state.snapshot, policies, self._state.bucket_policies)

    def replace_bucket_policies(self, policies: BucketPolicies) -> None:
        """The same of the policies of buckets."""
        self._replace(self._state.snapshot, self._state.resource_policies, policies)

    @property
    def resource_policies(self) -> ResourcePolicies:
        return self._state.resource_policies

    @property
    def bucket_policies(self) -> BucketPolicies:
        return self._state.bucket_policies

    def add(self, caller_key: str, grants: Grants) -> None:
        """Know one more caller, such as a session that came with its token, until `remove` or `replace`."""
        self._state.know(caller_key, grants)

    def remove(self, caller_keys: Iterable[str]) -> None:
        """Know these no more."""
        self._state.forget(caller_keys)

    def is_allowed(self, caller_key: str, action: str, resource: str) -> bool:
        """Whether a decision is kept that allows it."""
        known = self._state.decisions.get((caller_key, action, resource))
        return known is not None and known.allowed

    def asks_about(self, caller_key: str, action: str, resource: str, prefix: str) -> bool:
        """Whether a policy that has a say in this decision looks at a condition key with this lower-case prefix."""
        return self._state.asks_about(caller_key, action, resource, prefix)

    def decide(
        self, caller_key: str, action: str, resource: str, context_factory: ContextFactory
    ) -> Decision:
        state = self._state
        known = state.decisions.get((caller_key, action, resource))
        return known if known is not None else state.decide(caller_key, action, resource, context_factory)

    def _replace(self, snapshot: Snapshot, policies: ResourcePolicies, buckets: BucketPolicies) -> None:
        self._state = _State(snapshot, policies, buckets, self.resource_tags)


class _State:
    """One snapshot and the decisions made by it; a decision never outlives its snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        resource_policies: ResourcePolicies,
        bucket_policies: BucketPolicies,
        resource_tags: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.decisions: dict[tuple[str, str, str], Decision] = {}
        self.snapshot = dict(snapshot)
        self.resource_policies = resource_policies
        self.bucket_policies = bucket_policies
        self._resource_tags = resource_tags
        self._constant: dict[tuple[str, str], bool] = {}

    def decide(
        self, caller_key: str, action: str, resource: str, context_factory: ContextFactory
    ) -> Decision:
        grants = self.snapshot.get(caller_key)
        if grants is None:
            return _UNKNOWN
        name, attached, account_id = self._attached(grants.caller, action, resource)
        constant = self._is_constant(caller_key, action, grants.policies()) and (
            attached is None or self._is_constant(name, action, (attached,))
        )
        context: Context = {}
        if not constant:
            context = context_factory()
            tags = self._resource_tags.get(resource)
            if tags is not None:
                context = {**context, **resource_tag_context(tags)}
        decision = evaluate_discreetly(
            Request(action, resource, grants.caller, context),
            identity=grants.identity,
            boundary=grants.boundary,
            session=grants.session,
            resource=attached,
            resource_account_id=account_id or grants.caller.account_id,
        )
        if constant and len(resource) <= _LONGEST_RESOURCE:
            if len(self.decisions) >= _MOST_DECISIONS:
                self.decisions.clear()
            self.decisions[caller_key, action, resource] = decision
        return decision

    def _attached(self, caller: Caller, action: str, resource: str) -> tuple[str, Policy | None, str]:
        """The ARN of what has the policy that is about this resource, the policy, and the account that owns the
        resource: empty if nothing tells it."""
        if not resource.startswith(_BUCKET_ARN):
            return resource, self.resource_policies.get(resource), account_of(resource)
        bucket = bucket_of(resource)
        found = self.bucket_policies.get(bucket)
        if found is None or action == _CREATE_BUCKET:  # which would make another bucket than the one there is
            return resource, None, ""
        if (
            action in _ON_BUCKET_POLICIES
            and caller.kind is CallerKind.ROOT
            and caller.account_id == found.account_id
        ):
            # "To ensure that bucket owners don't inadvertently lock themselves out of their own buckets, the root
            # principal in a bucket owner's AWS account can perform [these], even if their bucket policy explicitly
            # denies the root principal's access." (API reference of PutBucketPolicy)
            return resource, None, found.account_id
        return _BUCKET_ARN + bucket, found.policy, found.account_id

    def asks_about(self, caller_key: str, action: str, resource: str, prefix: str) -> bool:
        grants = self.snapshot.get(caller_key)
        if grants is None:
            return False
        name, attached, _ = self._attached(grants.caller, action, resource)
        if self._is_constant(caller_key, action, grants.policies()) and (
            attached is None or self._is_constant(name, action, (attached,))
        ):
            return False
        policies = [*grants.policies(), *([] if attached is None else [attached])]
        lower = action.lower()
        return any(
            key.startswith(prefix)
            for policy in policies
            for statement in policy.statements
            if statement.covers(lower)
            for key in statement.request_keys
        )

    def know(self, caller_key: str, grants: Grants) -> None:
        self.forget((caller_key,))
        self.snapshot[caller_key] = grants

    def forget(self, caller_keys: Iterable[str]) -> None:
        known = [key for key in caller_keys if self.snapshot.pop(key, None) is not None]
        if known:
            self.decisions.clear()
            self._constant.clear()

    def _is_constant(self, owner: str, action: str, policies: Iterable[Policy]) -> bool:
        """Whether no statement that covers the action looks at anything but the caller and the resource, in the
        policies of this owner: a caller's key or a resource's ARN."""
        known = self._constant.get((owner, action))
        if known is None:
            lower = action.lower()
            known = not any(
                statement.request_keys and statement.covers(lower)
                for policy in policies
                for statement in policy.statements
            )
            if len(self._constant) >= _MOST_ACTIONS:
                self._constant.clear()
            self._constant[owner, action] = known
        return known


def resource_tag_context(tags: Mapping[str, str]) -> dict[str, str]:
    """The condition keys of the tags of one of SageMaker's resources."""
    return {
        f"{prefix}:ResourceTag/{key}": value for prefix in ("aws", "sagemaker") for key, value in tags.items()
    }


def bucket_of(resource: str) -> str:
    """The bucket in the ARN of a bucket or of an object."""
    return resource[len(_BUCKET_ARN) :].partition("/")[0]


def account_of(resource: str) -> str:
    """The account in an ARN; empty if it names none, as those of S3."""
    parts = resource.split(":", 5)
    return parts[4] if len(parts) == 6 else ""
