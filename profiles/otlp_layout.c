// SPDX-License-Identifier: Apache-2.0
/*
 * Telling the layouts of OTLP profiles apart.
 *
 * Between proto 1.7 and 1.11 the messages were renumbered four times under one service name,
 * without a version field or a negotiation, and a reader of one layout silently misreads another.
 * But protobuf keeps wire types, and each renumbering put a field of another wire type, or none, in
 * an old place:
 *
 *     where                       1.7              1.8            1.9            1.10, 1.11
 *     dictionary 7, element f1    varint           packed (stack) packed         packed
 *     attribute table, f1         string (LEN)     varint         varint         varint
 *     Profile f3                  packed (LEN)     fixed64        fixed64        fixed64
 *     Profile f7                  varint           LEN (comment)  LEN 16 (id)    LEN 16
 *     Profile f8                  LEN (comment)    LEN 16 (id)    varint         varint
 *     Profile f9                  varint           varint         LEN            LEN
 *     Profile f12                 LEN/varint       LEN (attrs)    -              -
 *     Sample f2                   varint (count)   LEN (values)   LEN            LEN (attributes)
 *     Sample f3                   LEN              LEN            LEN            varint (link)
 *     Sample f4                   LEN (attrs)      varint (link)  varint         LEN (values)
 *     Sample f6                   LEN (timestamps) -              -              -
 *
 * Every sample and profile that says something votes; the votes of the whole message decide, newest
 * first where nobody says anything (a sample with no more than stack, field 2 and timestamps reads
 * alike in 1.8 to 1.11). Packed fields are taken for granted: every producer packs, as proto3 asks.
 * Voting stops after VOTES_ENOUGH records: a message has one producer.
 */
#include "profiles/otlp.h"

enum { VOTES_ENOUGH = 4096 };

struct votes {
	uint32_t v1_7, v1_8_or_9, v1_10;
	uint32_t v1_8, v1_9;
	uint32_t records;
};

static void vote_sample(struct votes *votes, struct wire_span sample)
{
	struct reader r = wire_reader(sample, NULL);
	struct wire_field field;
	bool f3_len = false, f4_len = false, f3_varint = false, f4_varint = false, f6 = false,
	     f2_varint = false;

	while (wire_next(&r, &field)) {
		bool len = field.type == WIRE_LEN;
		f2_varint |= field.number == 2 && !len;
		f3_len |= field.number == 3 && len;
		f3_varint |= field.number == 3 && !len;
		f4_len |= field.number == 4 && len;
		f4_varint |= field.number == 4 && !len;
		f6 |= field.number == 6;
	}
	if (f6 || f2_varint || (f3_len && f4_len))
		votes->v1_7++;
	else if (f3_varint || f4_len)
		votes->v1_10++;
	else if (f3_len || f4_varint)
		votes->v1_8_or_9++;
	votes->records++;
}

static void vote_profile(struct votes *votes, struct wire_span profile)
{
	struct reader r = wire_reader(profile, NULL);
	struct wire_field field;

	votes->records++;
	while (votes->records < VOTES_ENOUGH && wire_next(&r, &field)) {
		bool len = field.type == WIRE_LEN;
		switch (field.number) {
		case 2:
			vote_sample(votes, field.bytes);
			break;
		case 3:
			votes->v1_7 += len;
			break;
		case 7:
			votes->v1_8 += len && field.bytes.len != 16;
			votes->v1_9 += len && field.bytes.len == 16;
			break;
		case 8:
			votes->v1_8 += len && field.bytes.len == 16;
			votes->v1_9 += !len;
			break;
		case 9:
			votes->v1_8 += !len;
			votes->v1_9 += len;
			break;
		case 12:
			votes->v1_8++;
			break;
		default:
			break;
		}
	}
}

/* Walks resource_profiles (2) / scope_profiles (2) / profile: the same numbers at each level in all
 * layouts. */
static void vote_profiles(struct votes *votes, struct wire_span message)
{
	struct reader request = wire_reader(message, NULL);
	struct wire_field resource, scope, profile;

	while (votes->records < VOTES_ENOUGH && wire_next(&request, &resource)) {
		struct reader scopes = wire_reader(resource.bytes, NULL);
		while (resource.number == 1 && votes->records < VOTES_ENOUGH &&
			wire_next(&scopes, &scope)) {
			struct reader profiles = wire_reader(scope.bytes, NULL);
			while (scope.number == 2 && votes->records < VOTES_ENOUGH &&
				wire_next(&profiles, &profile))
				if (profile.number == 2)
					vote_profile(votes, profile.bytes);
		}
	}
}

/* The wire type of field 1 of the first elements that have one: 1.7 if it is @p old. */
static void vote_table(struct votes *votes, const struct otlp_request *request,
	enum otlp_table_name name, uint32_t old)
{
	const struct otlp_table *table = &request->tables[name];

	for (uint32_t i = 0; i < table->count && i < VOTES_ENOUGH; i++) {
		struct wire_span element = {
			request->message.bytes + table->items[i].off, table->items[i].len};
		struct reader r = wire_reader(element, NULL);
		struct wire_field field;
		while (wire_next(&r, &field))
			if (field.number == 1)
				votes->v1_7 += field.type == old;
	}
}

enum otlp_layout otlp_detect_layout(const struct otlp_request *request)
{
	struct votes votes = {0};

	vote_profiles(&votes, request->message);
	vote_table(&votes, request, OTLP_STACKS, WIRE_VARINT);
	vote_table(&votes, request, OTLP_ATTRIBUTES, WIRE_LEN);
	if (votes.v1_7 > votes.v1_10 + votes.v1_8_or_9)
		return OTLP_1_7;
	if (votes.v1_8_or_9 > votes.v1_10)
		return votes.v1_9 >= votes.v1_8 ? OTLP_1_9 : OTLP_1_8;
	/* Samples that read alike in all, but a profile that only 1.8 writes. */
	if (votes.v1_10 == 0 && votes.v1_8 > votes.v1_9)
		return OTLP_1_8;
	return OTLP_1_10;
}
