"""Runs a notebook from its first cell to its last, and tells its outputs as JSON: for each code cell, its outputs.

    run.py NOTEBOOK        with what the notebook wants in the environment

A cell that fails ends it with 1 and the cell's error.
"""

import json
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == "code"]))
