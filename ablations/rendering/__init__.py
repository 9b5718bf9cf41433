"""Tables and figures: one data structure for tables, one style for figures."""
