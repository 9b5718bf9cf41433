"""Plan and run cells: requests, plans, the scheduler, launchers and workers."""
