"""Plan and run grids of arms x seeds, and record the cells in MLflow. Imports `rrpo`, never `reports` or `studies`.

`arms` and `grids` declare arms and grids. `execution` plans a grid's missing cells and runs their stages on a launcher.
`tracking` records cells in MLflow and reads them back. `stats` holds the tests, `rendering` the tables and the style of figures.
"""
