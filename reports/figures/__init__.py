"""Figures of a report: vector PDF and PNG in the house style, each with its caption."""
