//go:build tools

// Package lab pins what the lab builds.
package lab

import (
	_ "github.com/rhysd/actionlint/cmd/actionlint"
)
