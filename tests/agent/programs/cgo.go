// SPDX-License-Identifier: Apache-2.0

// recurse.go's stack with C in it: Go calls C, C calls Go back, and at the bottom C sends the signal.
package main

/*
#include <signal.h>
#include <unistd.h>
extern int back(int depth);
static int twice(int depth) { volatile int sum = back(depth); return sum + 1; }
static void end(void) { kill(getpid(), SIGABRT); pause(); }
*/
import "C"

//export back
func back(depth C.int) C.int { return C.int(recurse(int(depth))) }

//go:noinline
func recurse(depth int) int {
	if depth == 0 {
		C.end()
		return 0
	}
	if depth == 25 {
		return int(C.twice(C.int(depth - 1)))
	}
	return recurse(depth-1) + depth%3
}

func main() {
	done := make(chan int)
	go func() { done <- recurse(50) }()
	<-done
}
