// SPDX-License-Identifier: Apache-2.0
/*
 * A number that strangers cannot guess, for hash seeds: who can choose keys must not be able to choose collisions.
 */
#ifndef CAIRN_BASE_RANDOM_H
#define CAIRN_BASE_RANDOM_H

#include <stdint.h>

/** The same in one run of a program, another in the next. No system call (works in the sandbox). Any thread. */
uint64_t random_process_seed(void);

#endif
