//go:build tools

// Package lab pins what the lab builds.
package lab

import (
	_ "k8s.io/kubernetes/cmd/kubelet"
)
