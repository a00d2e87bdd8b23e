# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a RuntimeClass should be, and the patch from what it is. Pure."""

from __future__ import annotations

import typing as t
from contextlib import suppress
from dataclasses import dataclass

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._labels import parse_labels, parse_tolerations
from ansible_collections.screwdriver.kata.plugins.module_utils._values import join_names

# AnsibleK8SModule reports the missing library.
with suppress(ImportError):
    from kubernetes.utils.quantity import parse_quantity

API = "node.k8s.io/v1"

Body = dict[str, t.Any]


@dataclass(frozen=True)
class Wanted:
    """A RuntimeClass as asked for; None stays as it is."""

    name: str
    handler: str | None
    overhead: dict[str, str] | None
    node_selector: dict[str, str] | None
    tolerations: list[dict[str, t.Any]] | None


def parse(params: dict[str, t.Any]) -> Wanted:
    """Checks the module's parameters.

    Raises:
        UserError: One is not valid.
    """
    if not params["name"].strip():
        raise UserError("name is empty; give the name of the RuntimeClass, such as kata.")
    if params["state"] == "present" and not params["handler"].strip():
        raise UserError("handler is empty; give the name of containerd's runtime handler, such as kata.")
    selector = params["node_selector"]
    return Wanted(
        name=params["name"],
        handler=params["handler"],
        overhead=_quantities(params["overhead"]),
        node_selector=None if selector is None else parse_labels("node_selector", selector),
        tolerations=parse_tolerations("tolerations", params["tolerations"]),
    )


def new_body(wanted: Wanted, metadata: Body | None = None) -> Body:
    """The RuntimeClass to create."""
    body: Body = {
        "apiVersion": API,
        "kind": "RuntimeClass",
        "metadata": {"name": wanted.name, **(metadata or {})},
        "handler": wanted.handler,
    }
    if wanted.overhead:
        body["overhead"] = {"podFixed": wanted.overhead}
    scheduling = {"nodeSelector": wanted.node_selector, "tolerations": wanted.tolerations}
    if scheduling := {key: value for key, value in scheduling.items() if value}:
        body["scheduling"] = scheduling
    return body


def recreated_body(current: Body, wanted: Wanted) -> Body:
    """The RuntimeClass that replaces another one: what is not asked for stays as it is."""
    scheduling = current.get("scheduling") or {}
    metadata = {key: current["metadata"][key] for key in ("labels", "annotations") if key in current["metadata"]}
    return new_body(
        Wanted(
            name=wanted.name,
            handler=wanted.handler,
            overhead=_overhead(current) if wanted.overhead is None else wanted.overhead,
            node_selector=scheduling.get("nodeSelector") if wanted.node_selector is None else wanted.node_selector,
            tolerations=scheduling.get("tolerations") if wanted.tolerations is None else wanted.tolerations,
        ),
        metadata,
    )


def patch_for(current: Body, wanted: Wanted) -> Body:
    """The JSON merge patch from a RuntimeClass to the wanted one; empty where nothing differs."""
    patch: Body = {}
    if wanted.overhead is not None and not _same_quantities(_overhead(current), wanted.overhead):
        patch["overhead"] = {"podFixed": _replacing(_overhead(current), wanted.overhead)} if wanted.overhead else None
    scheduling: Body = {}
    selector = (current.get("scheduling") or {}).get("nodeSelector") or {}
    if wanted.node_selector is not None and selector != wanted.node_selector:
        scheduling["nodeSelector"] = _replacing(selector, wanted.node_selector) if wanted.node_selector else None
    tolerations = (current.get("scheduling") or {}).get("tolerations") or []
    if wanted.tolerations is not None and not _same_tolerations(tolerations, wanted.tolerations):
        scheduling["tolerations"] = wanted.tolerations or None
    if scheduling:
        patch["scheduling"] = scheduling
    return patch


def diff_view(body: Body | None) -> Body:
    """What the module manages of a RuntimeClass, for the diff."""
    return {key: body[key] for key in ("handler", "overhead", "scheduling") if key in body} if body else {}


def require_unused(name: str, pods: t.Iterable[Body], action: str) -> None:
    """Refuses to delete or recreate a RuntimeClass that pods use.

    Raises:
        UserError: Pods that have not ended use it.
    """
    using = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods if pod["spec"].get("runtimeClassName") == name]
    if using:
        raise UserError(
            f"RuntimeClass {name} cannot be {action} while pods use it ({join_names(using)}); wait until they end, or set force."
        )


def _overhead(body: Body) -> dict[str, t.Any]:
    return (body.get("overhead") or {}).get("podFixed") or {}


def _quantities(overhead: dict[str, t.Any] | None) -> dict[str, str] | None:
    if overhead is None:
        return None
    for resource, amount in overhead.items():
        try:
            valid = not isinstance(amount, bool) and parse_quantity(amount) >= 0
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise UserError(f"overhead: {amount!r} is not a valid quantity of {resource}; use for example 250m, 2 or 160Mi.")
    return {resource: str(amount) for resource, amount in overhead.items()}


def _same_quantities(one: dict[str, t.Any], two: dict[str, t.Any]) -> bool:
    return one.keys() == two.keys() and all(parse_quantity(one[key]) == parse_quantity(two[key]) for key in one)


def _same_tolerations(one: list[Body], two: list[Body]) -> bool:
    """The API server defaults the operator to Equal, and the order has no meaning."""

    def plain(items: list[Body]) -> list[list[tuple[str, str]]]:
        return sorted(
            sorted((key, str(value)) for key, value in {"operator": "Equal", **item}.items() if value not in (None, "")) for item in items
        )

    return plain(one) == plain(two)


def _replacing(current: dict[str, t.Any], wanted: dict[str, t.Any]) -> dict[str, t.Any]:
    """A merge patch that leaves nothing of ``current`` that is not wanted."""
    return {**dict.fromkeys(current.keys() - wanted.keys()), **wanted}
