"""``zephyr explain``: the plan of a script's dataset."""

from __future__ import annotations

from typing import Any

from fray import ContextConfig

from zephyr.cli.options import AsJson, EntryPoint, ScriptArgs, ScriptFile
from zephyr.cli.output import print_json, reserved_stdout
from zephyr.cli.script import open_script
from zephyr.dataset import Dataset
from zephyr.execution.defaults import Defaults
from zephyr.ops import Join, Map, Union
from zephyr.plan import PhysicalPlan, PhysicalStage, compute_plan


def explain_script(
    script: ScriptFile, args: ScriptArgs = None, entry_point: EntryPoint = "main", as_json: AsJson = False
) -> None:
    """Print the plans of a script's datasets without running them.

    The script's function main() is called: where it would run a dataset, the plan is printed, and the run gives no items. If
    it returns a Dataset, its plan is printed too.

    JSON is a list of plans. Keys: source (shards, files, bytes, parts), stages (each with number, type, input_shards,
    output_shards, operations, and others: the plans of the datasets it joins or appends), output_shards.
    """
    plans: list[PhysicalPlan] = []
    defaults = Defaults(dry_run=True, show=plans.append if as_json else print)
    with reserved_stdout(as_json), open_script(script, entry_point, args or [], ContextConfig("sync"), defaults) as call:
        result = call()
        if isinstance(result, Dataset):
            defaults.show(compute_plan(result))
    if as_json:
        print_json([describe_plan(plan) for plan in plans])


def describe_plan(plan: PhysicalPlan) -> dict[str, Any]:
    """Return a plan as JSON has it."""
    sizes = plan.source_sizes_bytes
    shards = [plan.num_shards, *(stage.output_shards for stage in plan.stages)]
    return {
        "source": {
            "shards": plan.num_shards,
            "files": None if sizes is None else len(sizes),
            "bytes": None if sizes is None else sum(sizes),
            "parts": len(plan.source_parts),
        },
        "stages": [_describe_stage(number, stage, shards[number - 1]) for number, stage in enumerate(plan.stages, 1)],
        "output_shards": plan.output_shards,
    }


def _describe_stage(number: int, stage: PhysicalStage, input_shards: int) -> dict[str, Any]:
    operations: list[str] = []
    others: list[PhysicalPlan] = []
    for op in stage.operations:
        operations += map(repr, op.operations if isinstance(op, Map) else (op,))
        others += op.others if isinstance(op, Union) else (op.right,) if isinstance(op, Join) else ()
    return {
        "number": number,
        "type": stage.stage_type.value,
        "input_shards": input_shards,
        "output_shards": stage.output_shards,
        "operations": operations,
        "others": [describe_plan(other) for other in others],
    }
