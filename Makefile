# SPDX-License-Identifier: Apache-2.0
# Every target bootstraps .venv first; JOBS bounds what runs side by side.
PYTHON ?= python3
JOBS ?= 2
PARALLEL := $(if $(filter 1,$(JOBS)),,-n $(JOBS))
BIN := .venv/bin
STAMP := .venv/.installed
CPP_FOLDERS := kernels/src kernels/include/codesign kernels/tests hls/include/codesign hls/src hls/tb \
	rtl_tests rtl_tests/machine
CPP := $(wildcard $(foreach folder,$(CPP_FOLDERS),$(folder)/*.cpp $(folder)/*.hpp))
SOURCES := codesign tests rtl_tests boards benchmarks
BENCH_EDGE := cpu_m3vit_tiny low_bit_gemm expert_formats digits_experts streaming foresight \
	$(if $(wildcard /dev/nvidia0 /dev/nvhost-gpu),gpu_experts)
KERNELS := $(wildcard kernels/CMakeLists.txt kernels/src/* kernels/include/codesign/*)

.PHONY: help demo m3vit-tiny test bench-edge lint format clean

help:
	@echo "make demo    checkpoint -> QONNX -> bundle in build/demo -> four engines -> report"
	@echo "make m3vit-tiny    the bundle of an M3ViT-tiny with random weights in build/m3vit-tiny"
	@echo "make test    every test"
	@echo "make bench-edge    the edge runtime's benchmarks: prints their tables, stores benchmarks/results"
	@echo "make lint    ruff, mypy and clang-format;  make format  rewrites;  make clean  removes build/ and caches"

demo: $(STAMP)
	$(BIN)/codesign demo --out build/demo

m3vit-tiny: $(STAMP)
	$(BIN)/codesign generate models/m3vit_tiny.toml --board zcu104 --out build/m3vit-tiny

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL)

# A missed target does not keep the others from running; the GPU's benchmark runs where there is one.
bench-edge: $(STAMP)
	@status=0; for name in $(BENCH_EDGE); do \
		echo "== benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || status=1; \
	done; $(BIN)/python benchmarks/edge_tables.py && exit $$status

lint: $(STAMP)
	$(BIN)/ruff check $(wildcard $(SOURCES))
	$(BIN)/ruff format --check $(wildcard $(SOURCES))
	$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(STAMP)
	$(BIN)/ruff check --fix $(wildcard $(SOURCES))
	$(BIN)/ruff format $(wildcard $(SOURCES))
	$(BIN)/clang-format -i $(CPP)

# The stamp is written last, so an interrupted installation is done again. Native kernels are built with it.
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(KERNELS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find codesign tests rtl_tests boards -name __pycache__ -type d -prune -exec rm -rf {} +
