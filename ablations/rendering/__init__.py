"""Tables and figures: one model of a table, one style of figures."""
