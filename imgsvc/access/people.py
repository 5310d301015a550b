"""Who of those that a sign-on provider knows may use the dashboard."""

from collections.abc import Iterable, Mapping
from typing import Any

KINDS = ("email", "sub", "group")


def is_allowed(claims: Mapping[str, Any], allowed: Iterable[str], groups_claim: str) -> bool:
    """Whether a rule (`email:…`, `sub:…`, `group:…`) matches the person's claims.

    An email address counts only if the provider says that it has verified it: elsewhere anyone could enter any.
    Letters A to Z are compared without case; others exactly, since case folding makes different addresses equal.
    """
    mine = {f"sub:{claims.get('sub')}"}
    email = claims.get("email")
    if isinstance(email, str) and claims.get("email_verified") is True:
        mine.add(f"email:{_lower(email)}")
    groups = claims.get(groups_claim)
    if isinstance(groups, list):
        mine.update(f"group:{group}" for group in groups if isinstance(group, str))
    return any((_lower(rule) if rule.startswith("email:") else rule) in mine for rule in allowed)


def lacks_claims(claims: Mapping[str, Any], allowed: Iterable[str], groups_claim: str) -> bool:
    """Whether a rule needs a claim that is not there, so that the provider's userinfo may tell more."""
    needed = {"email": ("email", "email_verified"), "group": (groups_claim,), "sub": ("sub",)}
    kinds = {rule.partition(":")[0] for rule in allowed}
    return any(name not in claims for kind in kinds for name in needed[kind])


def name_of(claims: Mapping[str, Any]) -> str:
    """The name that the provider gives the person."""
    names = (claims.get(name) for name in ("name", "preferred_username", "email", "sub"))
    return next((name for name in names if isinstance(name, str) and name), "")


def _lower(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
