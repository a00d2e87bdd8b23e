# Every target sets up what it needs; nothing has to be prepared. `make help` lists them.
SHELL := bash
.DEFAULT_GOAL := help
RUN := tools/run
STAGED := tools/staged
# Run twice before it counts as failed: where the random name of its temporary folder ends in "_", it takes that name for a link.
LINT_DOCS := antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs dependent .

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Move a throw-away cluster to Kata while builds flow. DEMO_FAULT=failed-starts shows the way back.
	$(RUN) python -m lab demo --fault "$(DEMO_FAULT)"

.PHONY: e2e
e2e: ## One cluster end to end: builds run on a virtual machine that site made a Kata node. E2E_VARS=file has variables of yours.
	[ -n "$(KATA_NODE_INVENTORY)" ] || $(RUN) tools/machine
	$(RUN) python -m lab e2e --variables "$(E2E_VARS)"

.PHONY: test
test: lint sanity units integration docs build ## Everything that needs no VM: lints, sanity, units, integration on a real API server, docs, build.
	@echo "==> make test passed"

.PHONY: molecule
molecule: ## Make a build node of a virtual machine and take it back (molecule test): roles, reboot, removal, and tests/node on its disks.
	$(RUN) tools/molecule

.PHONY: lint
lint: ## Style and types: ruff, mypy, yamllint, ansible-lint (production), docs and changelog lints, argument specs against defaults.
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) python tools/lint_roles.py
	$(RUN) mypy
	$(RUN) bash -c 'MYPYPATH=$$KATA_TREE mypy -p ansible_collections.screwdriver.kata.plugins'
	$(STAGED) yamllint .
	$(STAGED) ansible-lint --offline --profile production
	$(STAGED) $(LINT_DOCS) || $(STAGED) $(LINT_DOCS)
	$(STAGED) antsibull-changelog lint

.PHONY: sanity
sanity: ## ansible-test sanity.
	$(STAGED) bash -c 'ansible-test sanity --local --color no --python "$$(python -c "import sys; print(*sys.version_info[:2], sep=chr(46))")"'

.PHONY: units
units: ## ansible-test units.
	$(STAGED) bash -c 'ansible-test units --local --color no --python "$$(python -c "import sys; print(*sys.version_info[:2], sep=chr(46))")"'

.PHONY: integration
integration: ## Integration tests against the lab's API server and Screwdriver's npm router.
	$(RUN) python -m pytest -n 2 --dist loadfile --durations 15 tests/integration

.PHONY: nodes
nodes: ## Faults and bad input of the node roles, in systemd containers. Needs root.
	$(RUN) python -m pytest -rs --durations 10 tests/node

.PHONY: docs
docs: ## Build the documentation site into docs/build.
	$(RUN) tools/docs

.PHONY: build
build: ## Build the collection's archive, and install it into an empty place.
	$(STAGED) ansible-galaxy collection build --force --output-path "$(CURDIR)/dist"
	$(RUN) bash -c 'ansible-galaxy collection install --force --no-deps --offline --collections-path "$$KATA_CACHE/installed" dist/screwdriver-kata-*.tar.gz'

.PHONY: bench
bench: ## Measure: node_pool beside a loop over kubernetes.core.k8s and kubectl label, on 1,000 and 5,000 nodes.
	$(RUN) python -m benchmarks.node_pool

.PHONY: bench-node
bench-node: ## Measure: seconds, tasks and bytes of the first and the second run of the node roles. Needs root.
	$(RUN) python -m benchmarks.node

.PHONY: lab-up lab-down
lab-up: ## Bring the lab up, a throw-away cluster on loopback.
	$(RUN) python -m lab up
lab-down: ## End the lab and remove all that it kept.
	$(RUN) python -m lab down
