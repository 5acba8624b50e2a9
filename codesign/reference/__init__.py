# SPDX-License-Identifier: Apache-2.0
"""The judge: one exact NumPy-integer function per operator, and the tables that every engine prints.

In: a `Graph` and integer inputs. Out: every tensor of the graph, exactly as the spec says. No float takes part, except
where `tables.py` computes its constants once.
"""

from codesign.reference.run import OPERATORS, run_graph, run_task
from codesign.reference.tables import TABLES, Table

__all__ = ["OPERATORS", "TABLES", "Table", "run_graph", "run_task"]
