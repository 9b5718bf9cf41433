"""Plan and run cells: requests, plans, the scheduler, launchers, workers and the runs folder."""
