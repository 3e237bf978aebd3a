"""Who may call and what they may do, as the controller told last: what a gateway verifies and authorises by.

The root key of the installation is always known. Everyone else comes with a snapshot (`IdentityStore.snapshot`);
sessions come with their own tokens, and are what the identity behind them is now.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from moorage.auth.authorizer import Authorizer, ContextFactory, Grants
from moorage.auth.credentials import AccessKey
from moorage.auth.policy import Policy, PolicyError, PolicyKind, compile_policy, denial_message
from moorage.auth.policy import Request as PolicyRequest
from moorage.auth.policy_principals import Caller, caller_of
from moorage.auth.sessions import ExpiredTokenError, InvalidTokenError, Session
from moorage.errors import AccessDeniedException, ExpiredTokenException, UnrecognizedClientException

_MOST_SESSIONS = 10_000
logger = logging.getLogger(__name__)

OpenToken = Callable[[bytes], Session]
"""From a session token; raises `InvalidTokenError` or `ExpiredTokenError`."""


class Access:
    """Access keys, sessions and policies."""

    def __init__(self, root: AccessKey, *, open_token: OpenToken | None = None) -> None:
        self._root = root
        self._open_token = open_token
        self._authorizer = Authorizer()
        self.credentials: dict[str, AccessKey] = {}
        self._identities: Mapping[str, Mapping[str, Any]] = {}
        self._policies: dict[str, Policy] = {}
        self._sessions: dict[str, Session] = {}
        self.replace({"access_keys": {}, "identities": {}, "policies": {}})

    def replace(self, snapshot: Mapping[str, Any]) -> None:
        """Know these from now on, and nobody else. What was known of sessions is looked up anew."""
        self._identities = snapshot["identities"]
        self._policies = _compile_all(snapshot["policies"], PolicyKind.IDENTITY)
        self.credentials = {
            key_id: AccessKey(
                access_key_id=key_id,
                secret_access_key=key["secret"],
                account_id=key["account_id"],
                principal_arn=key["principal_arn"],
                user_id=key["user_id"],
            )
            for key_id, key in snapshot["access_keys"].items()
        }
        self.credentials[self._root.access_key_id] = self._root
        self._forget_sessions()
        self._authorizer.replace({key.access_key_id: self._grants(key) for key in self.credentials.values()})

    def replace_resource_policies(self, documents: Mapping[str, str]) -> None:
        """Know these resource-based policies from now on, by the resource's ARN, and no others."""
        self._authorizer.replace_resource_policies(_compile_all(documents, PolicyKind.RESOURCE))

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
        identity = self._identities.get(session.identity_arn)
        if identity is None or identity["id"] != session.identity_id:
            raise _invalid_token()
        if len(self._sessions) >= _MOST_SESSIONS:
            self._forget_sessions()
        self._sessions[session.access_key_id] = session
        self._authorizer.add(session.access_key_id, self._session_grants(session))

    def _forget_sessions(self) -> None:
        self._authorizer.remove(self._sessions)
        self._sessions = {}

    def _grants(self, key: AccessKey) -> Grants:
        identity = self._identities.get(key.principal_arn, {})
        return Grants(caller=self._caller(key), identity=self._named(identity.get("policies", ())))

    def _session_grants(self, session: Session) -> Grants:
        limits: list[Policy] | None = None
        if session.session_policy is not None or session.session_policy_arns:
            limits = self._named(session.session_policy_arns)
            if session.session_policy is not None:
                limits.append(
                    compile_policy(session.session_policy, name="session policy", kind=PolicyKind.IDENTITY)
                )
        identity = self._identities[session.identity_arn]
        return Grants(
            caller=self._caller(session), identity=self._named(identity["policies"]), session=limits
        )

    def _named(self, names: Any) -> list[Policy]:
        return [self._policies[name] for name in names if name in self._policies]

    def _caller(self, key: AccessKey) -> Caller:
        entity_arn = key.identity_arn if isinstance(key, Session) else key.principal_arn
        session_tags = key.tags if isinstance(key, Session) else {}
        return caller_of(
            arn=key.principal_arn,
            account_id=key.account_id,
            user_id=key.user_id,
            entity_arn=entity_arn,
            tags={**self._identities.get(entity_arn, {}).get("tags", {}), **session_tags},
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
