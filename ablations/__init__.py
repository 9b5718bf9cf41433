"""Grids of arms x seeds -> cells -> run on worker processes -> MLflow. Imports `rrpo`, never `reports` or `studies`.

`grids` names arms and grids; `plan` says what is missing; `jobs` turns cells into tasks; `scheduler` runs tasks on a
launcher of `launchers`; `tracking` writes MLflow, `store` reads it; `statistics` and `summary` make the table of results.
"""
