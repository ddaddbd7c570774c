// SPDX-License-Identifier: Apache-2.0
#include "net/grpc_retry.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool parse(const char *text, uint64_t *ms_ret)
{
	return grpc_retry_parse((const uint8_t *)text, strlen(text), ms_ret);
}

/* Written by python3-protobuf: status 14 "busy", a DebugInfo first, then 90 s and 1 ns. */
#define KNOWN                                                                                                                    \
	"CA4SBGJ1c3kaMQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLkRlYnVnSW5mbxIFCgNhYmMaMgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBj" \
	"LlJldHJ5SW5mbxIGCgQIWhAB"

Test(grpc_retry_parse, reads_what_another_library_wrote)
{
	uint64_t ms = 0;

	cr_assert(parse(KNOWN, &ms));
	cr_assert_eq(ms, 90001, "a part of a millisecond is one");
}

Test(grpc_retry_parse, negative_and_endless_pauses_are_none)
{
	uint64_t ms = 7;

	cr_expect_not(parse("CA4aOQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxINCgsI+///////////AQ==", &ms), "-5 s");
	cr_expect_not(parse("CA4aNQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIJCgcIgICAgIAg", &ms), "2^40 s");
	cr_assert_eq(ms, 7);
}

Test(grpc_retry_parse, reads_what_it_wrote)
{
	static const uint32_t pauses[] = {1, 999, 1000, 1001, 60000, UINT32_MAX / 2};
	char text[GRPC_RETRY_TEXT_MAX];

	for (size_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
		uint64_t ms = 0;
		grpc_retry_format(NET_GRPC_UNAVAILABLE, pauses[i], text);
		cr_expect(parse(text, &ms), "%s", text);
		cr_expect_eq(ms, pauses[i]);
	}
}

Test(grpc_retry_parse, every_cut_and_every_damage_is_read_within_its_bounds)
{
	size_t len = strlen(KNOWN);
	uint64_t ms;

	for (size_t cut = 0; cut < len; cut++) {
		/* Of exactly this size, for sanitizers. */
		uint8_t *text = malloc(cut + 1);
		cr_assert_not_null(text);
		memcpy(text, KNOWN, cut);
		(void)grpc_retry_parse(text, cut, &ms);
		free(text);
	}
	for (size_t at = 0; at < len; at++) {
		char text[sizeof(KNOWN)];
		memcpy(text, KNOWN, sizeof(KNOWN));
		for (int c = 1; c < 256; c++) {
			text[at] = (char)c;
			(void)parse(text, &ms);
		}
	}
	cr_assert_not(parse("", &ms));
	cr_assert_not(parse("!!!!", &ms));
}

Test(grpc_retry_parse, a_long_header_is_not_looked_at)
{
	size_t len = GRPC_RETRY_DETAILS_MAX + 1;
	uint8_t *text = malloc(len);
	uint64_t ms;

	cr_assert_not_null(text);
	memset(text, 'A', len);
	cr_assert_not(grpc_retry_parse(text, len, &ms));
	free(text);
}
