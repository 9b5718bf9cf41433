"""Run cells: request, plan, scheduler, launchers, workers, runs folder."""
