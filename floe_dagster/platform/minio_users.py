"""Users of a bucket on MinIO, each with a policy of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from floe_dagster.platform.object_store import ObjectStore, same_policy
from floe_dagster.platform.steps import Steps
from floe_dagster.platform.waiting import PlatformError


class MinioUsers:
    """Makes users and their policies, as MinIO's administrator.

    Args:
        store: With the administrator's keys.
        steps: Does them.
    """

    def __init__(self, store: ObjectStore, steps: Steps) -> None:
        self.store = store
        self.steps = steps
        self._admin = store.admin()

    def ensure(
        self,
        key: str,
        secret: str,
        *,
        policy_name: str,
        policy: dict[str, Any],
        is_usable: Callable[[], bool],
    ) -> None:
        """Make a user with one policy; what is there with another secret or another text is changed.

        Args:
            key: Access key id, which is the user's name.
            secret: Its secret.
            policy_name: How the policy is called.
            policy: What it allows.
            is_usable: Tells whether the user can do with this secret what it is for.

        Raises:
            PlatformError: MinIO refuses.
        """
        from minio.error import MinioAdminException

        try:
            self._policy(policy_name, policy)
            user = self._look(lambda: self._admin.user_info(key))
            if user is None:
                self.steps.make(f"user {key}", lambda: self._admin.user_add(key, secret))
            elif is_usable():
                self.steps.done(f"user {key}", "there")
            else:
                self.steps.make(
                    f"secret of user {key}", lambda: self._admin.user_add(key, secret), change=True
                )
            self.steps.ensure(
                f"policy {policy_name} of user {key}",
                user is not None and policy_name in _policies_of(user),
                lambda: self._admin.attach_policy([policy_name], user=key),
            )
        except MinioAdminException as error:
            raise PlatformError(
                f"MinIO at {self.store.address} refuses: {_message(error)}. MINIO_ROOT_USER has to be its administrator"
            ) from None

    def _policy(self, name: str, wanted: dict[str, Any]) -> None:
        current = self._look(lambda: self._admin.policy_info(name))
        if current is not None and same_policy(_policy_of(current), wanted):
            self.steps.done(f"policy {name}", "there")
            return
        self.steps.make(
            f"policy {name}",
            lambda: self._admin.policy_add(name, policy=wanted),
            change=current is not None,
        )

    def _look(self, call: Callable[[], Any]) -> Any:
        """Return what an administration call gives; None where the thing does not exist."""
        from minio.error import MinioAdminException

        try:
            return call()
        except MinioAdminException as error:
            if "NoSuch" in str(error):
                return None
            raise


def _policy_of(answer: Any) -> Any:
    try:
        loaded = json.loads(answer)
    except ValueError:
        return {}
    return loaded.get("Policy", loaded) if isinstance(loaded, dict) else {}


def _policies_of(answer: Any) -> set[str]:
    try:
        return set(str(json.loads(answer).get("policyName") or "").split(","))
    except (ValueError, AttributeError):
        return set()


def _message(error: Any) -> str:
    body = getattr(error, "_body", "") or ""
    try:
        found = json.loads(body)
        return str(found.get("Message") or found.get("Code") or error)[:300]
    except (ValueError, AttributeError):
        return f"HTTP {getattr(error, '_code', '')}".strip()
