"""Who may call and what they may do, as the controller told last: what a gateway verifies and authorises by.

The root key of the installation is always known. Everyone else comes with a snapshot, in pieces, and with differences
to it (their form is in `moorage.storage.identity_snapshot`): what a difference costs does not depend on how many
identities there are. Sessions come with their own tokens, and are what the identity behind them is now.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moorage.auth.authorizer import Authorizer, BucketPolicy, ContextFactory, Grants
from moorage.auth.credentials import AccessKey
from moorage.auth.execution_roles import WHOLE_ACCOUNT
from moorage.auth.policy import Policy, PolicyError, PolicyKind, compile_policy, denial_message
from moorage.auth.policy import Request as PolicyRequest
from moorage.auth.policy_principals import Caller, caller_of
from moorage.auth.sessions import ExpiredTokenError, InvalidTokenError, Session
from moorage.errors import AccessDeniedException, ExpiredTokenException, UnrecognizedClientException

_MOST_SESSIONS = 10_000
logger = logging.getLogger(__name__)

OpenToken = Callable[[bytes], Session]
"""From a session token; raises `InvalidTokenError` or `ExpiredTokenError`."""


class _Identity:
    """A user, a role, or an account's root."""

    __slots__ = ("account_id", "arn", "attached", "identity_id", "inline", "key_ids", "tags")

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.identity_id: str = value["id"]
        self.arn: str = value["arn"]
        self.account_id: str = value["account_id"]
        self.tags: Mapping[str, str] = value["tags"]
        self.attached: Sequence[str] = value["attached"]
        """ARNs of managed policies."""
        self.inline = list(_compile_all(value["inline"], PolicyKind.IDENTITY).values())
        self.key_ids = list(value["access_keys"])


class Access:
    """Access keys, sessions and policies."""

    def __init__(self, root: AccessKey, *, open_token: OpenToken | None = None) -> None:
        self._root = root
        self._open_token = open_token
        self._authorizer = Authorizer()
        self.credentials: dict[str, AccessKey] = {root.access_key_id: root}
        self._by_id: dict[str, _Identity] = {}
        self._by_arn: dict[str, _Identity] = {}
        self._policies: dict[str, Policy] = {}  # managed ones, by ARN
        self._holders: dict[str, set[str]] = {}  # ids of the identities that each is attached to
        self._sessions: dict[str, Session] = {}
        self._documents: Mapping[str, str] = {}  # what the resources' policies were compiled from,
        self._buckets: Mapping[str, Mapping[str, str]] = {}  # and those of buckets
        self._grant_root()

    def apply(self, difference: Mapping[str, Any]) -> bool:
        """Know these as they are now; null for those that are no more. Returns whether something that was known of a
        key or a session may have changed, which then has to be asked for anew."""
        identities: Mapping[str, Mapping[str, Any] | None] = difference["identities"]
        documents: Mapping[str, Any] = difference["policies"]
        known_before = [each for each in identities if each in self._by_id]
        affected = set(identities)
        for policy_arn, document in documents.items():
            affected |= self._holders.get(policy_arn, set())
            if document is None:
                self._policies.pop(policy_arn, None)
            else:
                self._policies[policy_arn] = compile_stored(
                    document, name=policy_arn, kind=PolicyKind.IDENTITY
                )
        # All go before any comes: one may have the name now that another had before.
        for identity_id in known_before:
            self._remove(self._by_id[identity_id])
        for value in identities.values():
            if value is not None:
                self._add(_Identity(value), value["access_keys"])
        for identity_id in affected:
            identity = self._by_id.get(identity_id)
            if identity is not None:
                for key_id in identity.key_ids:
                    self._authorizer.add(key_id, self._grants(self.credentials[key_id]))
        self.credentials[self._root.access_key_id] = self._root
        if self._root.account_id in affected:
            self._grant_root()
        if documents or known_before:
            self._forget_sessions()
        return bool(known_before)

    def replace(self, snapshot: Mapping[str, Any]) -> None:
        """Know these from now on, and nobody else."""
        fresh = self.fresh()
        fresh.apply(snapshot)
        self.become(fresh)

    def fresh(self) -> "Access":
        """One that knows nobody yet, to `become`."""
        return Access(self._root, open_token=self._open_token)

    def become(self, other: "Access") -> None:
        """Know what another one knows, which is not used any more; but for resource policies. What was known of
        sessions is looked up anew."""
        self._sessions = {}
        self.credentials = other.credentials
        self._by_id = other._by_id
        self._by_arn = other._by_arn
        self._policies = other._policies
        self._holders = other._holders
        self._authorizer.adopt(other._authorizer)

    def _add(self, identity: _Identity, secrets: Mapping[str, str]) -> None:
        self._by_id[identity.identity_id] = identity
        self._by_arn[identity.arn] = identity
        for policy_arn in identity.attached:
            self._holders.setdefault(policy_arn, set()).add(identity.identity_id)
        for key_id, secret in secrets.items():
            self.credentials[key_id] = AccessKey(
                access_key_id=key_id,
                secret_access_key=secret,
                account_id=identity.account_id,
                principal_arn=identity.arn,
                user_id=identity.identity_id,
            )

    def _remove(self, identity: _Identity) -> None:
        del self._by_id[identity.identity_id]
        del self._by_arn[identity.arn]
        for policy_arn in identity.attached:
            holders = self._holders[policy_arn]
            holders.discard(identity.identity_id)
            if not holders:
                del self._holders[policy_arn]
        for key_id in identity.key_ids:
            del self.credentials[key_id]
        self._authorizer.remove(identity.key_ids)

    def _grant_root(self) -> None:
        self._authorizer.add(self._root.access_key_id, self._grants(self._root))

    def replace_resource_policies(self, documents: Mapping[str, str]) -> None:
        """Know these resource-based policies from now on, by the resource's ARN, and no others; those of buckets
        aside."""
        before, known = self._documents, self._authorizer.resource_policies
        compiled = {
            arn: known[arn] if before.get(arn) == document else _compile_attached(arn, document)
            for arn, document in documents.items()
        }
        self._documents = documents
        self._authorizer.replace_resource_policies(compiled)

    def replace_bucket_policies(self, buckets: Mapping[str, Mapping[str, str]]) -> None:
        """Know the policies of these buckets from now on, and no others: by the bucket's name the `account_id` that
        it belongs to, and the `document`."""
        before, known = self._buckets, self._authorizer.bucket_policies
        compiled = {
            name: known[name]
            if before.get(name) == bucket
            else BucketPolicy(bucket["account_id"], _compile_attached(name, bucket["document"]))
            for name, bucket in buckets.items()
        }
        self._buckets = buckets
        self._authorizer.replace_bucket_policies(compiled)

    def change_resource_tags(self, change: Mapping[str, Any]) -> None:
        """Know the `tags` of these resources from now on, by ARN; null for one that has none any more. If they are
        the `whole`, no other resource has any."""
        tags = self._authorizer.resource_tags
        if change["whole"]:
            tags.clear()
        for arn, known in change["tags"].items():
            if known is None:
                tags.pop(arn, None)
            else:
                tags[arn] = known

    def bucket_owner(self, bucket: str) -> str | None:
        """The account that a bucket with a policy belongs to; None if no policy of it is known."""
        found = self._authorizer.bucket_policies.get(bucket)
        return None if found is None else found.account_id

    def open_session(self, token: bytes) -> Session:
        """The session of a token.

        Raises:
            ExpiredTokenException, UnrecognizedClientException: it has ended, or is none of ours (any more).
        """
        if self._open_token is None:
            raise _invalid_token()
        session = _opened(self._open_token, token)
        self._know(session)
        return session

    def is_allowed(self, key: AccessKey, action: str, resource: str) -> bool:
        """Whether it has been decided already that the owner of the key may do this. If not, `authorize` decides."""
        return self._authorizer.is_allowed(key.access_key_id, action, resource)

    def asks_about(self, key: AccessKey, action: str, resource: str, prefix: str) -> bool:
        """Whether what decides this looks at a condition key with this prefix, which is in lower case.

        Raises:
            UnrecognizedClientException: the key is of a session whose user or role is no more.
        """
        if isinstance(key, Session) and key.access_key_id not in self._sessions:
            self._know(key)
        return self._authorizer.asks_about(key.access_key_id, action, resource, prefix)

    def authorize(self, key: AccessKey, action: str, resource: str, context: ContextFactory) -> None:
        """Return if the owner of the key may do this.

        Raises:
            AccessDeniedException: says, in AWS's words, which kind of policy did not allow it or denied it.
            UnrecognizedClientException: the key is of a session whose user or role is no more.
        """
        decision = self._authorizer.decide(key.access_key_id, action, resource, context)
        if decision.allowed:
            return
        if isinstance(key, Session) and key.access_key_id not in self._sessions:
            self._know(key)
            self.authorize(key, action, resource, context)
        else:
            raise AccessDeniedException(
                denial_message(PolicyRequest(action, resource, self._caller(key), {}), decision)
            )

    def _know(self, session: Session) -> None:
        """Have the session's grants at hand, for as long as they are used."""
        identity = self._by_arn.get(session.identity_arn)
        if identity is None or identity.identity_id != session.identity_id:
            raise _invalid_token()
        if len(self._sessions) >= _MOST_SESSIONS:
            self._forget_sessions()
        self._sessions[session.access_key_id] = session
        self._authorizer.add(session.access_key_id, self._session_grants(session))

    def _forget_sessions(self) -> None:
        self._authorizer.remove(self._sessions)
        self._sessions = {}

    def _grants(self, key: AccessKey) -> Grants:
        identity = self._by_arn.get(key.principal_arn)
        policies = [] if identity is None else self._policies_of(identity)
        return Grants(caller=self._caller(key), identity=policies)

    def _session_grants(self, session: Session) -> Grants:
        limits: list[Policy] | None = None
        if session.session_policy is not None or session.session_policy_arns:
            limits = self._managed(session.session_policy_arns)
            if session.session_policy is not None:
                limits.append(
                    compile_policy(session.session_policy, name="session policy", kind=PolicyKind.IDENTITY)
                )
        identity = self._by_arn[session.identity_arn]
        policies = [WHOLE_ACCOUNT] if session.stands_for_account else self._policies_of(identity)
        return Grants(caller=self._caller(session), identity=policies, session=limits)

    def _policies_of(self, identity: _Identity) -> list[Policy]:
        return self._managed(identity.attached) + identity.inline

    def _managed(self, arns: Sequence[str]) -> list[Policy]:
        return [self._policies[arn] for arn in arns if arn in self._policies]

    def _caller(self, key: AccessKey) -> Caller:
        entity_arn = key.identity_arn if isinstance(key, Session) else key.principal_arn
        session_tags = key.tags if isinstance(key, Session) else {}
        identity = self._by_arn.get(entity_arn)
        return caller_of(
            arn=key.principal_arn,
            account_id=key.account_id,
            user_id=key.user_id,
            entity_arn=entity_arn,
            tags={**(identity.tags if identity is not None else {}), **session_tags},
            token_issued=key.issued_text if isinstance(key, Session) else None,
        )


def session_headers(key: AccessKey) -> list[tuple[bytes, bytes]]:
    """What the controller has to know of a session; nothing for a permanent key."""
    if not isinstance(key, Session):
        return []
    document = {
        "identity_arn": key.identity_arn,
        "session_policy": key.session_policy,
        "session_policy_arns": key.session_policy_arns,
        "session_tags": dict(key.tags),
        "session_issued": key.issued_text,
    }
    return [(b"x-moorage-session", json.dumps(document).encode())]


def _invalid_token() -> UnrecognizedClientException:
    return UnrecognizedClientException("The security token included in the request is invalid.")


def _opened(open_token: OpenToken, token: bytes) -> Session:
    try:
        return open_token(token)
    except InvalidTokenError:
        raise _invalid_token() from None
    except ExpiredTokenError:
        raise ExpiredTokenException("The security token included in the request is expired") from None


def _compile_all(documents: Mapping[str, Any], kind: PolicyKind) -> dict[str, Policy]:
    return {name: compile_stored(document, name=name, kind=kind) for name, document in documents.items()}


def _compile_attached(name: str, document: str) -> Policy:
    return compile_stored(document, name=name, kind=PolicyKind.RESOURCE)


def compile_stored(document: str | Mapping[str, Any], *, name: str, kind: PolicyKind) -> Policy:
    """A policy that does not compile was accepted by another version: it must not allow by being left out of a
    set with a Deny, so it stands for one that denies everything."""
    try:
        return compile_policy(document, name=name, kind=kind)
    except PolicyError as error:
        logger.error("the policy %s cannot be read, and so denies everything: %s", name, error)
        return compile_policy(_deny_everything(kind), name=name, kind=kind)


def _deny_everything(kind: PolicyKind) -> Mapping[str, Any]:
    to_whom = {"Principal": "*"} if kind is PolicyKind.RESOURCE else {}
    return {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*", **to_whom},
    }
