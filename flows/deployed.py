"""What a flow is asked for: the fields of a form, and what its deployment says of those that were not given, field by field.

In Prefect, a given parameter replaces the deployment's parameter as a whole: with `--params '{"arm": {"share": 0.3}}'` the other fields
would take the model's defaults, which is another selection under the deployment's name. So a flow completes its parameters from its
deployment when it starts, and stores them: its page shows them, and a later deployment changes no rerun.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, get_type_hints
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import FlowRunContext
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Form = TypeVar("Form", bound=BaseModel)


def taking(form: type[Form]) -> Callable[[Callable[[Form], Result]], Callable[..., Result]]:
    """Decorator below `@flow` for a function of one form: the flow's parameters are its fields, with their bounds and descriptions."""

    def of_fields(function: Callable[[Form], Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def filled_in(**given: Any) -> Result:
            return function(filled(form, given))

        types = get_type_hints(form, include_extras=True)
        filled_in.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=types[name])
                for name, field in form.model_fields.items()
            ]
        )
        described = [f"    {name}: {field.description}" for name, field in form.model_fields.items()]
        filled_in.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Args:", *described])
        filled_in.form = form  # type: ignore[attr-defined]
        return filled_in

    return of_fields


def filled(form: type[Form], given: Mapping[str, Any]) -> Form:
    """The form with its fields as given. Prefect has made models of them: the form sees what was set, and completes it."""
    fields = {
        name: value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        for name, value in given.items()
    }
    return form(**fields)


def as_deployed(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorator below `@flow`: call the function with its parameters completed. Outside of a deployment's run they stay as given."""

    signature, form = inspect.signature(function), getattr(function, "form", None)

    @functools.wraps(function)
    def complete(*args: Parameters.args, **given: Parameters.kwargs) -> Result:
        bound = signature.bind(*args, **given)
        bound.arguments = _of_this_run(bound.arguments, form)
        return function(*bound.args, **bound.kwargs)

    return complete


def named(template: str) -> Callable[[], str]:
    """A `flow_run_name`: the parameter `name` if a person gave one, else such as "{arm.name}-s{seed}", from the completed parameters.

    A child keeps the name that its parent gave it, of what it makes: tables, logs and the ledger call it so.
    """

    def name() -> str:
        context = FlowRunContext.get()
        parameters = _of_this_run(context.parameters or {} if context else {})
        run = context.flow_run if context else None
        if run and run.parent_task_run_id:
            return parameters.get("name") or run.name
        return parameters.get("name") or template.format(**parameters)

    return name


def _of_this_run(given: Mapping[str, Any], form: type[BaseModel] | None = None) -> dict[str, Any]:
    run, deployment = runtime.flow_run.id, runtime.deployment.id
    if not run or not deployment:
        return dict(given)
    with get_client(sync_client=True) as client:
        return completed(client, UUID(str(run)), UUID(str(deployment)), given, form)


def completed(
    client: SyncPrefectClient,
    run: UUID,
    deployment: UUID,
    given: Mapping[str, Any],
    form: type[BaseModel] | None = None,
) -> dict[str, Any]:
    """The parameters of a flow run, what was not given of a model's fields taken from the deployment; stored on the server.

    A flow's `form` completes what neither gives before it is stored: stored, every field is given, so that another call, as of a
    rerun, changes nothing.
    """
    deployed = client.read_deployment(deployment).parameters
    whole = {name: _merged_with(value, deployed.get(name)) for name, value in given.items()}
    if form:
        made = filled(form, whole)
        whole = {name: getattr(made, name) for name in whole}
    stored = to_jsonable_python(whole)
    if client.read_flow_run(run).parameters != stored:
        client.update_flow_run(run, parameters=stored)
    return whole


def _merged_with(value: Any, deployed: Any) -> Any:
    merged = _merged(value, deployed)
    return value if merged is value else type(value).model_validate(merged)


def _merged(value: Any, deployed: Any) -> Any:
    """A model's fields, those that were not given as deployed. Lists and mappings are values like numbers: given, they replace the deployment's."""
    if not (isinstance(value, BaseModel) and isinstance(deployed, Mapping)):
        return value
    given = {name: _merged(getattr(value, name), deployed.get(name)) for name in value.model_fields_set}
    return {**deployed, **given}
