// SPDX-License-Identifier: Apache-2.0
/* A program with symbols and lines, for the worker's tests to strip, split and pack. */
#include <stdio.h>

int sample_inner(int x);
int sample_outer(int x);

int __attribute__((noinline)) sample_inner(int x)
{
	return x * 3 + 1;
}

int __attribute__((noinline)) sample_outer(int x)
{
	return sample_inner(x) + sample_inner(x + 1);
}

int main(int argc, char **argv)
{
	(void)argv;
	return printf("%d\n", sample_outer(argc)) < 0;
}
