"""The faces of a classifier: the command line, the demo, the report.

Everything here goes through the public door (`import retain`) and decides nothing by itself.
"""
