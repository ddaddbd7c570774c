// SPDX-License-Identifier: Apache-2.0
/*
 * Which release the kernel of a build ID is, as agents said. Debug packages of kernels name no build IDs (their files lie under
 * usr/lib/debug/boot and usr/lib/debug/lib/modules), but they are called by the release. In memory: agents say it again.
 */
#ifndef CAIRN_SOURCES_KERNELS_H
#define CAIRN_SOURCES_KERNELS_H

#include "base/hmap.h"
#include "base/intern.h"
#include "fileid/build_id.h"

#include <pthread.h>

enum {
	KERNEL_RELEASE_SIZE = 65,
	KERNELS_MAX = 1 << 16, /* build IDs, and .. */
	KERNELS_RELEASES_MAX = 1 << 12, /* .. releases; past either all are forgotten */
};

struct kernels {
	pthread_mutex_t lock;
	struct hmap by_id; /* hash of a build ID -> number in releases */
	struct intern releases;
};

struct err *kernels_init(struct kernels *kernels) MUST_USE;
void kernels_deinit(struct kernels *kernels);
/**
 * @p release  as uname -r says it: letters, digits, ". + _ ~ -", beginning with a digit, under KERNEL_RELEASE_SIZE bytes; anything
 *             else is passed over, since package names are made of it
 * @return NULL; ERR_NOMEM. Any thread.
 */
struct err *kernels_note(struct kernels *kernels, const struct build_id *id, const char *release, size_t len) MUST_USE;
/** "" when nobody said. Any thread. */
void kernels_find(struct kernels *kernels, const struct build_id *id, char ret[KERNEL_RELEASE_SIZE]);

#endif
