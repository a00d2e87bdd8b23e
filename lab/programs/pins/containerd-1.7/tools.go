//go:build tools

// Package lab pins what the lab builds.
package lab

import (
	_ "github.com/containerd/containerd/cmd/containerd"
	_ "github.com/containerd/containerd/cmd/ctr"
	_ "github.com/containerd/containerd/cmd/containerd-shim-runc-v2"
)
