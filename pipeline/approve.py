"""The command ``dualpriv approve``: what a flow run that waits would spend, and the answer to it."""

import json
from typing import TYPE_CHECKING
from uuid import UUID

from stages.privacy.approval import Approval

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun


def approve_command(run: str, by: str | None, reason: str | None, *, approve: bool) -> None:
    """Show what flow run ``run``, by name or id, waits for; answer it where ``by`` and ``reason`` are said.

    The Prefect server is the one that the environment names.
    """
    from httpx import TransportError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import FlowPauseTimeout, NotPausedError, PrefectHTTPStatusError
    from prefect.flow_runs import resume_flow_run
    from prefect.settings import get_current_settings

    if (by is None) != (reason is None):
        raise ValueError("an answer has both: say --by and --reason, or neither to see what is asked")
    if by is not None and reason is not None:
        Approval(by=by, reason=reason, fingerprint="0" * 32, asked_in=None)  # refuses what a stage would
    url = get_current_settings().api.url
    if url is None:
        raise ValueError("no Prefect server is named: export PREFECT_API_URL=http://HOST:4200/api")
    try:
        with get_client(sync_client=True) as client:
            waiting = _waiting(client, run)
            print(_question(client, waiting))
        if by is None:
            print(f"\nto answer: dualpriv approve {run} --by NAME --reason WHY, with --deny for no")
            return
        resume_flow_run(waiting.id, run_input={"approve": approve, "by": by, "reason": reason})
    except TransportError:
        raise ValueError(f"no Prefect server answers at {url}: start it, or set PREFECT_API_URL") from None
    except PrefectHTTPStatusError as error:
        code = error.response.status_code
        raise ValueError(
            f"{url} answers with {code}: PREFECT_API_URL ends in /api, and may want a key"
        ) from None
    except (FlowPauseTimeout, NotPausedError):
        raise ValueError(
            f"{run} waits no longer: somebody else answered, or its seven days are over"
        ) from None
    print(f"\n{waiting.name} is told: {'yes' if approve else 'no'}, by {by}")


def _waiting(client: "SyncPrefectClient", run: str) -> "FlowRun":
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.exceptions import ObjectNotFound

    try:
        found = [client.read_flow_run(UUID(run))]
    except ObjectNotFound:
        found = []
    except ValueError:  # no UUID
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run])))
    waiting = [each for each in found if each.state is not None and each.state.is_paused()]
    if len(waiting) != 1:
        raise ValueError(
            f"{len(waiting) or 'no'} flow runs '{run}' wait for an answer: `prefect flow-run ls` shows "
            "names, ids and states"
        )
    return waiting[0]


def _question(client: "SyncPrefectClient", waiting: "FlowRun") -> str:
    """Return what the flow has written for a person to read."""
    assert waiting.state is not None
    keys = waiting.state.state_details.run_input_keyset or {}
    if "description" not in keys:
        raise ValueError(f"{waiting.name} waits for something else than an approval: look at its log")
    answer = client.request(
        "GET", "/flow_runs/{id}/input/{key}", path_params={"id": waiting.id, "key": keys["description"]}
    )
    return str(json.loads(answer.content.decode()))
