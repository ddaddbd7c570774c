// SPDX-License-Identifier: Apache-2.0

// A goroutine that recurses, calls through an interface and a closure, and stops where its argument says: "abort" in a signal to
// itself, "system" on the system stack (a garbage collection), "spin" never. Others wait, so that there are threads.
package main

import (
	"os"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"
)

type shape interface{ area(depth int) int }
type square struct{ side [9]int }

//go:noinline
func (s square) area(depth int) int { return recurse(depth-1) + s.side[depth%9] }

//go:noinline
func recurse(depth int) int {
	if depth <= 0 {
		return bottom()
	}
	var big [37]int
	big[depth%37] = depth
	var s shape = square{}
	result := func() int { return s.area(depth) }()
	return result + big[depth%5]
}

var sink int
var mode = "spin"

//go:noinline
func bottom() int {
	switch mode {
	case "abort":
		syscall.Kill(syscall.Getpid(), syscall.SIGABRT)
		time.Sleep(time.Hour)
	case "gc":
		for {
			runtime.GC()
		}
	case "sort":
		for {
			words := []int{5, 3, 9, 1, 7, 2, 8}
			sort.Slice(words, func(i, j int) bool { sink++; return words[i] < words[j] })
		}
	case "now":
		for {
			sink += time.Now().Nanosecond()
		}
	}
	for {
		sink++
	}
}

func main() {
	depth := 50
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	if len(os.Args) > 2 {
		depth, _ = strconv.Atoi(os.Args[2])
	}
	var wait sync.WaitGroup
	wait.Add(1)
	go func() { defer wait.Done(); recurse(depth) }()
	wait.Wait()
}
