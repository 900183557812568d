"""``drainplan``: what each remedy would give back."""

from __future__ import annotations

import argparse
from typing import List, Tuple

from drain_gdb.analysis.plan import Plan, plan_told
from drain_gdb.analysis.report import Selection
from drain_gdb.analysis.statistics import sweep_statistics
from drain_gdb.commands import allocators
from drain_gdb.commands.base import Context
from drain_gdb.commands.declared.plan import PlanWords
from drain_gdb.commands.opened import walked
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL
from drain_gdb.render import plan
from drain_gdb.render.style import Style


class PlanCommand(PlanWords):
    """Walk the heap once, reckon each remedy."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it."""
        plans, complete = self._plans(args, context)
        context.release()
        shown = plan.as_json(plans)
        if args.format == "text":
            style = Style() if args.output else context.style
            shown = "\n".join(plan.render(each, style, args.verbose) for each in plans)
        context.emit(shown, args.output)
        return EXIT_DONE if complete and all(p.sweep.sound for p in plans) else EXIT_PARTIAL

    def _plans(self, args: argparse.Namespace, context: Context) -> Tuple[List[Plan], bool]:
        """A plan of each allocator asked for, and whether every one could be read."""
        if context.statistics is not None:
            return [plan_told(sweep_statistics(context.statistics, Selection("arena")))], True
        snapshot = walked(self, args, context)
        chosen = allocators.numbers(snapshot.walked, args.allocator)
        return snapshot.plans(chosen, args.pins), not snapshot.refused
