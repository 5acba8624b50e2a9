# SPDX-License-Identifier: Apache-2.0
"""Experts that rest in a file, and a runtime that reads them while others compute (docs/edge.md, sections 3 to 7).

`file` is the store, `pack` makes one of a model, `run` executes its layers under a memory budget on a processor, `gpu`
on a GPU. `command` is what `codesign experts run` calls.
"""
