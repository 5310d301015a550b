"""One check of `imgsvc doctor`, in words."""

from imgsvc import Settings
from imgsvc.cli.doctor import Check, examine
from imgsvc.cli.doctor.finding import Finding


def found(check: Check, settings: Settings) -> list[Finding]:
    return [one.finding for one in examine(settings, (check,))]


def worst(check: Check, settings: Settings) -> str:
    """`wrong: what was said → the advice` of the worst finding; `well` when all are."""
    ranked = sorted(found(check, settings), key=lambda one: ("wrong", "warning", "well").index(one.status))
    return "well" if ranked[0].status == "well" else f"{ranked[0].status}: {ranked[0].said} → {ranked[0].advice}"
