// SPDX-License-Identifier: Apache-2.0
#include "base/random.h"

#include <string.h>
#include <sys/auxv.h>

uint64_t random_process_seed(void)
{
	/* Sixteen bytes that the kernel gives each new program, see getauxval(3). */
	const void *random = (const void *)(uintptr_t)getauxval(AT_RANDOM);
	uint64_t seed = 0;

	if (random)
		memcpy(&seed, random, sizeof(seed));
	return seed;
}
