//go:build tools

// Package lab pins what the lab builds.
package lab

import (
	_ "go.etcd.io/etcd/server/v3"
)
