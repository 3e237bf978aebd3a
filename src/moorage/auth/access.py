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
from moorage.auth.policy_principals import Caller, CallerKind
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
        self._sessions: dict[bytes, Session] = {}
        self._by_key: dict[str, Session] = {}
        self.replace({"access_keys": {}, "identities": {}, "policies": {}})

    def replace(self, snapshot: Mapping[str, Any]) -> None:
        """Know these from now on, and nobody else. What was known of sessions is looked up anew."""
        self._identities = snapshot["identities"]
        self._policies = _compile_all(snapshot["policies"])
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

    def open_session(self, token: bytes) -> AccessKey:
        """The key of a session, by its token.

        Raises:
            ExpiredTokenException, UnrecognizedClientException: it has ended, or is none of ours (any more).
        """
        session = self._sessions.get(token)
        if session is None:
            if self._open_token is None:
                raise UnrecognizedClientException("The security token included in the request is invalid.")
            session = _opened(self._open_token, token)
            identity = self._identities.get(session.identity_arn)
            if identity is None or identity["id"] != session.identity_id:
                raise UnrecognizedClientException("The security token included in the request is invalid.")
            if len(self._sessions) >= _MOST_SESSIONS:
                self._forget_sessions()
            self._sessions[token] = self._by_key[session.access_key_id] = session
            self._authorizer.add(session.access_key_id, self._session_grants(session))
        return session.access_key

    def session_headers(self, key: AccessKey) -> list[tuple[bytes, bytes]]:
        """What the controller has to know of a session; nothing for a permanent key."""
        session = self._by_key.get(key.access_key_id)
        if session is None:
            return []
        document = {
            "identity_arn": session.identity_arn,
            "session_policy": session.session_policy,
            "session_policy_arns": session.session_policy_arns,
            "session_tags": dict(session.tags),
        }
        return [(b"x-moorage-session", json.dumps(document).encode())]

    def authorize(self, key: AccessKey, action: str, resource: str, context: ContextFactory) -> None:
        """Return if the owner of the key may do this.

        Raises:
            AccessDeniedException: says, in AWS's words, which kind of policy did not allow it or denied it.
        """
        decision = self._authorizer.decide(key.access_key_id, action, resource, context)
        if not decision.allowed:
            caller = self._caller(key.principal_arn, key.account_id, key.user_id, key.principal_arn)
            raise AccessDeniedException(denial_message(PolicyRequest(action, resource, caller, {}), decision))

    def _forget_sessions(self) -> None:
        self._authorizer.remove(self._by_key)
        self._sessions = {}
        self._by_key = {}

    def _grants(self, key: AccessKey) -> Grants:
        identity = self._identities.get(key.principal_arn, {})
        return Grants(
            caller=self._caller(key.principal_arn, key.account_id, key.user_id, key.principal_arn),
            identity=self._named(identity.get("policies", ())),
        )

    def _session_grants(self, session: Session) -> Grants:
        identity = self._identities[session.identity_arn]
        limits: list[Policy] | None = None
        if session.session_policy is not None or session.session_policy_arns:
            limits = self._named(session.session_policy_arns)
            if session.session_policy is not None:
                limits.append(
                    compile_policy(session.session_policy, name="session policy", kind=PolicyKind.IDENTITY)
                )
        return Grants(
            caller=self._caller(
                session.principal_arn, session.account_id, session.user_id, session.identity_arn, session.tags
            ),
            identity=self._named(identity["policies"]),
            session=limits,
        )

    def _named(self, names: Any) -> list[Policy]:
        return [self._policies[name] for name in names if name in self._policies]

    def _caller(
        self,
        arn: str,
        account_id: str,
        user_id: str,
        entity_arn: str,
        session_tags: Mapping[str, str] | None = None,
    ) -> Caller:
        tags = {**self._identities.get(entity_arn, {}).get("tags", {}), **(session_tags or {})}
        name = entity_arn.rpartition("/")[2]
        if ":assumed-role/" in arn:
            kind = CallerKind.ASSUMED_ROLE
        elif entity_arn.endswith(":root"):
            kind = CallerKind.ROOT
        else:
            kind = CallerKind.USER
        return Caller(
            arn=arn,
            account_id=account_id,
            kind=kind,
            user_id=user_id,
            user_name=name if kind is CallerKind.USER else None,
            role_name=name if kind is CallerKind.ASSUMED_ROLE else None,
            session_name=arn.rpartition("/")[2] if kind is CallerKind.ASSUMED_ROLE else None,
            tags=tags,
            entity_arn=entity_arn,
        )


def _opened(open_token: OpenToken, token: bytes) -> Session:
    try:
        return open_token(token)
    except InvalidTokenError:
        raise UnrecognizedClientException("The security token included in the request is invalid.") from None
    except ExpiredTokenError:
        raise ExpiredTokenException("The security token included in the request is expired") from None


def _compile_all(documents: Mapping[str, Any]) -> dict[str, Policy]:
    """A policy that does not compile was accepted by another version: it must not allow by being left out of a
    set with a Deny, so it stands for one that denies everything."""
    compiled = {}
    for name, document in documents.items():
        try:
            compiled[name] = compile_policy(document, name=name, kind=PolicyKind.IDENTITY)
        except PolicyError as error:
            logger.error("the policy %s cannot be read, and so denies everything: %s", name, error)
            compiled[name] = compile_policy(_DENY_EVERYTHING, name=name, kind=PolicyKind.IDENTITY)
    return compiled


_DENY_EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"},
}
