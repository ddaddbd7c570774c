// SPDX-License-Identifier: Apache-2.0
/* The first bytes of a package from a stranger: ar, one of four packings, tar, md5sums. */
#include "sources/control.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct err *each(void *context, const struct build_id *id)
{
	if (id->len == 0 || id->len > BUILD_ID_MAX)
		abort();
	++*(size_t *)context;
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t extent;
	size_t count = 0;
	struct err *e = control_extent(data, size, &extent);

	if (!e && extent > CONTROL_MAX + size)
		abort();
	struct err *ids = control_build_ids(data, size, each, &count);
	if (e && !ids) /* what has an extent is not worth reading, else it is */
		abort();
	err_free(e);
	err_free(ids);
	return 0;
}
