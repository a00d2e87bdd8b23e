# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The one seam to kubernetes.core: nothing else in this collection imports it or the Kubernetes client."""

from __future__ import annotations

import json
import math
import random
import threading
import time
import typing as t
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC
from ansible_collections.kubernetes.core.plugins.module_utils.k8s.client import get_api_client
from ansible_collections.kubernetes.core.plugins.module_utils.k8s.core import AnsibleK8SModule
from ansible_collections.kubernetes.core.plugins.module_utils.k8s.exceptions import CoreException
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError

try:
    import urllib3.exceptions
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.exceptions import ResourceNotFoundError
except ImportError:
    # AnsibleK8SModule reports the missing library.
    pass

if t.TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

# Answers that a healthy API server gives while it is busy, restarting or losing its etcd.
RETRIABLE_STATUS = frozenset({429, 500, 502, 503, 504})
RETRY_SECONDS = 30.0
CONFLICT_SECONDS = 60.0
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
PAGE = 500
# Change.kind of a list of all objects.
LIST = "LIST"

T = t.TypeVar("T")


class ClusterError(UserError):
    """What the API server refused or could not do, as one sentence.

    Attributes:
        status: HTTP status, or 0 where no answer came.
        reason: The answer alone, without a period.
    """

    def __init__(self, message: str, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Change(t.NamedTuple):
    """What a watch reports.

    Attributes:
        kind: ADDED, MODIFIED, DELETED; BOOKMARK, which has no object; or LIST, whose objects are all that exist.
        objects: The object of the event, or all of the list.
        resource_version: Where the next watch continues.
    """

    kind: str
    objects: list[dict[str, t.Any]]
    resource_version: str


def argument_spec(**own: dict[str, t.Any]) -> dict[str, t.Any]:
    """The module's own options and the authentication options of kubernetes.core."""
    return {**deepcopy(AUTH_ARG_SPEC), **own}


def create_module(options: dict[str, t.Any], **kwargs: t.Any) -> AnsibleK8SModule:
    """An AnsibleK8SModule with check mode, the options given and the authentication options."""
    return AnsibleK8SModule(argument_spec=argument_spec(**options), supports_check_mode=True, **kwargs)


class Cluster:
    """Reads and writes objects as plain dictionaries.

    In check mode every write is a server-side dry run. Calls that meet a busy or restarting API server are repeated
    for at most ``RETRY_SECONDS``; one that has not answered yet is not waited for. All errors leave as ``ClusterError``.
    Safe for use by several threads.
    """

    # How far the API server's clock is ahead of this machine's.
    _ahead = timedelta()

    def __init__(self, module: AnsibleK8SModule, dry_run: bool = False) -> None:
        """dry_run: every write is a dry run, also outside check mode."""
        self._resources: dict[tuple[str, str], t.Any] = {}
        self._lock = threading.Lock()
        self._reached = False
        try:
            self._client = self._repeat(lambda: get_api_client(module), "reach", "the Kubernetes API")
        except CoreException as exc:
            raise ClusterError(f"{str(exc).rstrip('.')}. Set kubeconfig, context or the K8S_AUTH_* environment variables.") from exc
        self._client.dry_run = self._client.dry_run or dry_run
        # More calls at a time would open and close a connection each.
        self.connections: int = self._client.configuration.connection_pool_maxsize or 1

    def now(self) -> datetime:
        """The time by the API server's clock, after its latest answer: those of two machines that work on one rollout may differ.

        Until it has answered, the time is this machine's.
        """
        return datetime.now(UTC) + self._ahead

    def get(self, kind: str, name: str, namespace: str | None = None, api_version: str = "v1") -> dict[str, t.Any] | None:
        """One object, or None where it does not exist."""
        try:
            return self._call("read", kind, api_version, name=name, namespace=namespace)
        except ClusterError as exc:
            if exc.status == 404:
                return None
            raise

    def list(self, kind: str, api_version: str = "v1", **params: t.Any) -> tuple[list[dict[str, t.Any]], str]:
        """All objects and the resourceVersion of the list. params: namespace, label_selector, field_selector."""
        items: list[dict[str, t.Any]] = []
        token = None
        while True:
            page = self._call("list", kind, api_version, limit=PAGE, **({"_continue": token} if token else {}), **params)
            items += page.get("items") or []
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"].get("resourceVersion", "")

    def create(self, body: dict[str, t.Any], dry_run: bool = False) -> dict[str, t.Any]:
        """Creates an object. Raises ClusterError with status 409 where it exists."""
        meta = body["metadata"]
        names = {"name": meta.get("name"), "namespace": meta.get("namespace")}
        return self._call("create", body["kind"], body["apiVersion"], body=body, dry_run="All" if dry_run else None, **names)

    def require_creatable(self, body: dict[str, t.Any]) -> None:
        """Checks whether an object that exists could be created again: the API server refuses for any other reason before the conflict.

        Raises:
            ClusterError: It could not.
        """
        try:
            self.create(body, dry_run=True)
        except ClusterError as exc:
            if exc.status != 409:
                raise

    def patch(
        self, kind: str, name: str, patch: dict[str, t.Any], namespace: str | None = None, api_version: str = "v1"
    ) -> dict[str, t.Any]:
        """JSON merge patch: None deletes a key; a metadata.resourceVersion in it makes a lost race a ClusterError 409."""
        return self._call("patch", kind, api_version, body=patch, name=name, namespace=namespace)

    def update(self, attempt: Callable[[], T]) -> T:
        """Reads, decides and writes until no other writer is in between: the one retry after a conflict (409).

        Args:
            attempt: Reads what it decides on, and writes with the resourceVersion that it read. Called again after each conflict.

        Returns:
            What the last attempt returned.

        Raises:
            ClusterError: Any other error, or a conflict after ``CONFLICT_SECONDS``.
        """
        deadline = time.monotonic() + CONFLICT_SECONDS
        while True:
            try:
                return attempt()
            except ClusterError as exc:
                if exc.status != 409 or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.05, 0.5))

    def reconcile(
        self, kind: str, body: dict[str, t.Any], patch_for: Callable[[dict[str, t.Any]], dict[str, t.Any]], api_version: str = "v1"
    ) -> dict[str, t.Any] | None:
        """Patches an object unless it is as wanted.

        Args:
            kind: The object's kind.
            body: The object as it was read.
            patch_for: The merge patch that one version of the object needs, empty where none.
            api_version: The kind's API version.

        Returns:
            The object afterwards, ``body`` itself where nothing was written, or None where it no longer exists.

        Raises:
            ClusterError: It could not be written.
        """
        name, namespace, uid = body["metadata"]["name"], body["metadata"].get("namespace"), body["metadata"]["uid"]
        current: dict[str, t.Any] | None = body

        def attempt() -> dict[str, t.Any] | None:
            nonlocal current
            # The first attempt trusts what was read, so that nothing is read twice without a conflict.
            found, current = current or self.get(kind, name, namespace, api_version), None
            # An object of the same name that was created meanwhile is another one.
            if not found or found["metadata"]["uid"] != uid:
                return None
            if not (patch := patch_for(found)):
                return body
            patch = {**patch, "metadata": {**patch.get("metadata", {}), "uid": uid}}
            return self.patch(kind, name, patch, namespace, api_version)

        try:
            return self.update(attempt)
        except ClusterError as exc:
            if exc.status == 404:
                return None
            raise

    def evict(self, pod: dict[str, t.Any]) -> None:
        """Evicts this very pod with the Eviction API. One that does not exist any more is not an error."""
        meta = pod["metadata"]
        names = {"name": meta["name"], "namespace": meta["namespace"]}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": names, "deleteOptions": {"preconditions": {"uid": meta["uid"]}}}
        try:
            self._call("evict", "Pod", "v1", body=body, **names)
        except ClusterError as exc:
            # 409: another pod has the name now.
            if exc.status not in (404, 409):
                raise

    def delete(self, kind: str, name: str, namespace: str | None = None, api_version: str = "v1", uid: str | None = None) -> None:
        """Deletes an object; with uid, only that very object. One that does not exist any more is not an error."""
        body: dict[str, t.Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if self._client.dry_run:
            # The API server ignores dryRun in the query of a deletion that has a body.
            body["dryRun"] = ["All"]
        try:
            self._call("delete", kind, api_version, body=body, name=name, namespace=namespace)
        except ClusterError as exc:
            if exc.status != 404:
                raise

    def follow(self, kind: str, resource_version: str, seconds: int, api_version: str = "v1", **params: t.Any) -> Generator[Change]:
        """Watches for this many seconds, and lists where the API server no longer knows the resourceVersion (410).

        Args:
            kind: The kind of the objects.
            resource_version: Of the list or change that was read last.
            seconds: How long. If the API server does not answer, the watch continues until it has caught up, for at most
                ``RETRY_SECONDS``.
            api_version: The kind's API version.
            params: namespace, label_selector, field_selector.

        Yields:
            The changes in order.

        Raises:
            ClusterError: The API server refuses, or stays away.
        """
        deadline = time.monotonic() + seconds
        while True:
            left = max(1, math.ceil(deadline - time.monotonic()))
            try:
                for event, body in self._watch(kind, resource_version, left, api_version, allow_watch_bookmarks=True, **params):
                    resource_version = body["metadata"]["resourceVersion"]
                    yield Change(event, [] if event == "BOOKMARK" else [body], resource_version)
                return
            except ClusterError as exc:
                if exc.status != 410:
                    raise
            objects, resource_version = self.list(kind, api_version, **params)
            yield Change(LIST, objects, resource_version)
            if time.monotonic() >= deadline:
                return

    def _watch(
        self, kind: str, resource_version: str, seconds: int, api_version: str, **params: t.Any
    ) -> Generator[tuple[str, dict[str, t.Any]]]:
        """(type, object) for this many seconds. Raises ClusterError 410 where resource_version is too old."""
        from kubernetes.watch import Watch

        deadline = time.monotonic() + seconds
        silent_since: float | None = None
        while silent_since or time.monotonic() < deadline:
            left = max(1, math.ceil(deadline - time.monotonic()))
            options = {"timeout_seconds": left, "_request_timeout": (CONNECT_SECONDS, left + READ_SECONDS)}
            try:
                resource = self._resource(kind, api_version)

                def begin(resource: t.Any = resource, **request: t.Any) -> t.Any:
                    answer = resource.get(**request)
                    self._read_clock(answer.headers)
                    return answer

                for event in Watch().stream(begin, serialize=False, resource_version=resource_version, **options, **params):
                    body = event["raw_object"]
                    if event["type"] == "ERROR":
                        raise ClusterError(f"Cannot watch {kind}: {body.get('message')}.", int(body.get("code", 0)))
                    resource_version = body["metadata"]["resourceVersion"]
                    silent_since = None
                    yield event["type"], body
                silent_since = None
            except (ApiException, urllib3.exceptions.HTTPError) as exc:
                error = self._error(exc, "watch", kind)
                silent_since = silent_since or time.monotonic()
                if (error.status and error.status not in RETRIABLE_STATUS) or time.monotonic() - silent_since > RETRY_SECONDS:
                    raise error from exc
                time.sleep(1)

    def _read_clock(self, headers: Mapping[str, str] | None) -> None:
        """Notes the time at which the API server answered, in whole seconds."""
        try:
            told = parsedate_to_datetime((headers or {})["Date"]).replace(tzinfo=UTC)
        except (KeyError, ValueError):
            return
        self._ahead = told - datetime.now(UTC)

    def _resource(self, kind: str, api_version: str) -> t.Any:
        key = (api_version, kind)
        with self._lock:
            if key not in self._resources:
                self._resources[key] = self._client.resource(kind, api_version)
            return self._resources[key]

    def _call(self, verb: str, kind: str, api_version: str, **params: t.Any) -> dict[str, t.Any]:
        name, namespace = params.get("name"), params.get("namespace")
        what = f"{kind} {namespace}/{name}" if name and namespace else f"{kind} {name}" if name else kind
        return self._repeat(lambda: self._send(verb, kind, api_version, params), verb, what)

    def _repeat(self, attempt: Callable[[], T], verb: str, what: str) -> T:
        """What ``attempt`` returns; called again for at most ``RETRY_SECONDS`` while the API server is busy or restarts."""
        deadline = time.monotonic() + RETRY_SECONDS
        delay = 0.2
        while True:
            try:
                return attempt()
            except (ApiException, urllib3.exceptions.HTTPError, ResourceNotFoundError) as exc:
                self._read_clock(getattr(exc, "headers", None))
                error = self._error(exc, verb, what)
                retriable = error.status in RETRIABLE_STATUS if error.status else self._reached
                if not retriable or time.monotonic() + delay > deadline:
                    raise error from exc
            time.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, 5.0)

    def _send(self, verb: str, kind: str, api_version: str, params: dict[str, t.Any]) -> dict[str, t.Any]:
        resource = self._resource(kind, api_version)
        options = {"serialize": False, "_request_timeout": (CONNECT_SECONDS, READ_SECONDS)}
        options.update({key: value for key, value in params.items() if value is not None and key != "body"})
        body = params.get("body")
        if verb in ("read", "list"):
            answer = self._client.get(resource, **options)
        elif verb == "create":
            options.pop("name", None)
            answer = self._client.create(resource, body, **options)
        elif verb == "evict":
            answer = self._client.create(resource.subresources["eviction"], body, **options)
        elif verb == "patch":
            answer = self._client.patch(resource, body, content_type="application/merge-patch+json", **options)
        else:
            answer = self._client.delete(resource, body=body, **options)
        self._reached = True
        self._read_clock(answer.headers)
        return json.loads(answer.data)

    def _error(self, exc: Exception, verb: str, what: str) -> ClusterError:
        if isinstance(exc, ResourceNotFoundError):
            return ClusterError(f"Cannot {verb} {what}: the API server does not know this kind.", 404)
        if not isinstance(exc, ApiException):
            pool = getattr(exc, "pool", None)
            host = f" at {pool.scheme}://{pool.host}:{pool.port}" if pool else ""
            return ClusterError(f"Cannot {verb} {what}: no answer from the API server{host}. Check that it runs and can be reached.")
        try:
            reason = json.loads(exc.body or "")["message"]
        except (TypeError, ValueError, KeyError):
            reason = exc.reason
        if exc.status == 401:
            reason = "the API server does not accept the credentials (401). They are wrong or have expired: renew the kubeconfig or token"
        elif exc.status == 403 and " cannot " in str(reason):
            # Unlike an admission plugin, the authorizer names who cannot do what.
            reason = f"not allowed (403). Grant the permission or use other credentials: {reason}"
        reason = str(reason).rstrip(".")
        return ClusterError(f"Cannot {verb} {what}: {reason}.", exc.status, reason)
