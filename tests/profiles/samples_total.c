// SPDX-License-Identifier: Apache-2.0
/*
 * samples_total DATA_DIR: every profile type in a store of samples and its total, read beside no daemon or a running one; for tests
 * that compare totals with what clients were told.
 */
#include "profiles/samples.h"

#include <inttypes.h>
#include <stdio.h>

static struct err *print(void *context, const char *text, uint64_t value)
{
	(void)context;
	(void)printf("%s %" PRIu64 "\n", text, value);
	return NULL;
}

static struct err *run(const char *data_dir)
{
	CLEANUP(samples_closep) struct samples *samples = NULL;
	const struct samples_options options = {.data_dir = data_dir, .map_max = UINT64_C(16) << 30, .read_only = true};
	const struct samples_query query = {.tenant = 1};
	const struct samples_visitor visitor = {.item = print};

	TRY(samples_open(&options, &samples));
	return samples_types(samples, &query, &visitor);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		(void)fprintf(stderr, "usage: samples_total DATA_DIR\n");
		return 2;
	}
	struct err *e = run(argv[1]);
	if (!e)
		return 0;
	(void)fprintf(stderr, "samples_total: %s\n", err_message(e));
	err_free(e);
	return 1;
}
