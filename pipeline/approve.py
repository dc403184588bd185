"""The command ``dualpriv approve``: answer a flow run that waits before it spends."""

from uuid import UUID

from stages.privacy.approval import Approval


def approve_command(run: str, by: str, reason: str, *, approve: bool) -> None:
    """Answer for flow run ``run``, by name or id, on the Prefect server that the environment names."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.exceptions import ObjectNotFound
    from prefect.flow_runs import resume_flow_run

    Approval(by=by, reason=reason, fingerprint="0" * 32)  # refuses what the stage would refuse
    with get_client(sync_client=True) as client:
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
    resume_flow_run(waiting[0].id, run_input={"approve": approve, "by": by, "reason": reason})
    print(f"{waiting[0].name} is told: {'yes' if approve else 'no'}, by {by}")
