// SPDX-License-Identifier: Apache-2.0
/* Shared by answer.c and the two encoders. */
#ifndef CAIRN_API_ANSWER_INTERNAL_H
#define CAIRN_API_ANSWER_INTERNAL_H

#include "api/answer.h"
#include "base/hmap.h"

/* A frame of the protobuf answer: what makes two equal. */
struct frame_key {
	uint32_t function; /* indexes of the answer */
	uint32_t file;
	uint32_t line, column;
	uint32_t inlined;
	uint32_t seed; /* of this process, so that no table's author can choose collisions */
};

/* The protobuf answer's tables: from what a Cairn table calls a thing to its index in the answer. */
struct protobuf_state {
	struct hmap functions; /* function_id | aliases << 32 of the present table -> index */
	struct hmap files;     /* file_id of the present table -> index into strings */
	uint32_t strings, function_count;
	struct frame_key *frames; /* in the order of the answer */
	uint32_t *frame_slots;	  /* index + 1; 0: empty */
	uint32_t frame_count, frame_cap;
	size_t slot_mask;
	struct buf head;	  /* of the module, encoded at its begin */
	struct buf result_status; /* one byte an address: packed enums under 128 */
	uint32_t *frame_counts;	  /* columns of the module */
	uint64_t *offsets;
	uint32_t *indexes;
	size_t result_count, result_cap, index_count, index_cap;
};

struct api_answer {
	enum api_format format;
	enum api_demangle demangle;
	struct api_names *names;
	size_t limit;
	struct buf out;
	const struct table *table; /* of the module */
	bool first_module, first_result, has_results;
	struct protobuf_state protobuf;
};

struct err *json_answer_begin(struct api_answer *answer) MUST_USE;
struct err *json_answer_module(struct api_answer *answer, const struct api_module_head *head) MUST_USE;
struct err *json_answer_result(struct api_answer *answer, enum api_result_status status, const struct table_frame *frames,
	size_t count) MUST_USE;
struct err *json_answer_module_end(struct api_answer *answer) MUST_USE;
struct err *json_answer_end(struct api_answer *answer) MUST_USE;

struct err *protobuf_answer_begin(struct api_answer *answer) MUST_USE;
struct err *protobuf_answer_module(struct api_answer *answer, const struct api_module_head *head) MUST_USE;
struct err *protobuf_answer_result(struct api_answer *answer, enum api_result_status status,
	const struct table_frame *frames, size_t count) MUST_USE;
struct err *protobuf_answer_module_end(struct api_answer *answer) MUST_USE;
void protobuf_state_deinit(struct protobuf_state *state);

#endif
