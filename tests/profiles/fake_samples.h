// SPDX-License-Identifier: Apache-2.0
/*
 * A batch that stores nothing and prints each sample with all that it refers to, on one line: what
 * an intake hands to the store, without the store. Link it instead of profiles/samples*.c (its
 * symbols come first).
 */
#ifndef CAIRN_TESTS_PROFILES_FAKE_SAMPLES_H
#define CAIRN_TESTS_PROFILES_FAKE_SAMPLES_H

#include "profiles/samples.h"

#include <stdio.h>

struct samples_batch *fake_samples_create(FILE *out);
void fake_samples_destroy(struct samples_batch *batch);

#endif
