// SPDX-License-Identifier: Apache-2.0
#include "sources/kernels.h"

#include "base/digest.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

struct err *kernels_init(struct kernels *kernels)
{
	*kernels = (struct kernels){0};
	return pthread_mutex_init(&kernels->lock, NULL) ? err_nomem() : NULL;
}

void kernels_deinit(struct kernels *kernels)
{
	hmap_deinit(&kernels->by_id);
	intern_deinit(&kernels->releases);
	(void)pthread_mutex_destroy(&kernels->lock);
}

static bool is_release(const char *text, size_t len)
{
	if (len == 0 || len >= KERNEL_RELEASE_SIZE || !isdigit((unsigned char)text[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr(".+_~-", text[i]))
			return false;
	return memchr(text, 0, len) == NULL;
}

static uint64_t key_of(const struct build_id *id)
{
	return digest_xxh3_64(id->bytes, id->len);
}

struct err *kernels_note(struct kernels *kernels, const struct build_id *id, const char *release, size_t len)
{
	uint32_t number;

	if (id->len == 0 || !is_release(release, len))
		return NULL;
	(void)pthread_mutex_lock(&kernels->lock);
	if (kernels->by_id.count >= KERNELS_MAX || kernels->releases.count >= KERNELS_RELEASES_MAX) {
		hmap_clear(&kernels->by_id);
		intern_deinit(&kernels->releases);
		kernels->releases = (struct intern){0};
	}
	struct err *e = intern_add(&kernels->releases, release, len, &number);
	if (!e)
		e = hmap_set(&kernels->by_id, key_of(id), number);
	(void)pthread_mutex_unlock(&kernels->lock);
	return e;
}

void kernels_find(struct kernels *kernels, const struct build_id *id, char ret[KERNEL_RELEASE_SIZE])
{
	uint64_t number;

	ret[0] = 0;
	(void)pthread_mutex_lock(&kernels->lock);
	if (id->len > 0 && hmap_get(&kernels->by_id, key_of(id), &number))
		(void)snprintf(ret, KERNEL_RELEASE_SIZE, "%s", intern_text(&kernels->releases, (uint32_t)number));
	(void)pthread_mutex_unlock(&kernels->lock);
}
