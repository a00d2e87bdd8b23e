//go:build tools

// Package lab pins what the lab builds.
package lab

import (
	_ "sigs.k8s.io/kwok/cmd/kwok"
)
