//go:build tools

// Package lab pins what the lab builds.
package lab

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
)
