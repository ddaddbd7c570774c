// SPDX-License-Identifier: Apache-2.0
#include "api/answer_internal.h"

const char *api_module_status_name(enum api_module_status status)
{
	switch (status) {
	case API_MODULE_OK:
		return "ok";
	case API_MODULE_PENDING:
		return "pending";
	case API_MODULE_NO_SYMBOLS:
		return "no_symbols";
	case API_MODULE_FAILED:
		return "failed";
	case API_MODULE_UNKNOWN:
	default:
		return "unknown";
	}
}

const char *api_result_status_name(enum api_result_status status)
{
	switch (status) {
	case API_RESULT_OK:
		return "ok";
	case API_RESULT_OUT_OF_RANGE:
		return "out_of_range";
	case API_RESULT_NO_SYMBOL:
	default:
		return "no_symbol";
	}
}

struct err *api_answer_begin(enum api_format format, enum api_demangle demangle, struct api_names *names, size_t limit,
	struct api_answer **ret)
{
	CLEANUP(api_answer_destroyp) struct api_answer *answer = calloc(1, sizeof(*answer));
	if (!answer)
		return err_nomem();
	answer->format = format;
	answer->demangle = demangle;
	answer->names = names;
	answer->limit = limit;
	answer->first_module = true;
	TRY(format == API_FORMAT_JSON ? json_answer_begin(answer) : protobuf_answer_begin(answer));
	*ret = TAKE_PTR(answer);
	return NULL;
}

static struct err *check_limit(const struct api_answer *answer)
{
	size_t columns = answer->protobuf.index_count * sizeof(*answer->protobuf.indexes);

	if (answer->out.len <= answer->limit && columns <= answer->limit - answer->out.len)
		return NULL;
	return err_new(ERR_LIMIT, "the answer passes limits.answer, %zu bytes: ask for fewer addresses", answer->limit);
}

struct err *api_answer_module(struct api_answer *answer, const struct api_module_head *head, const struct table *table,
	const struct sha256 *table_id)
{
	answer->table = table;
	answer->first_result = true;
	answer->has_results = head->status == API_MODULE_OK;
	if (table)
		TRY(api_names_use_table(answer->names, table_id));
	TRY(answer->format == API_FORMAT_JSON ? json_answer_module(answer, head) : protobuf_answer_module(answer, head));
	return check_limit(answer);
}

struct err *api_answer_result(struct api_answer *answer, enum api_result_status status, const struct table_frame *frames,
	size_t count)
{
	TRY(answer->format == API_FORMAT_JSON ? json_answer_result(answer, status, frames, count) :
						protobuf_answer_result(answer, status, frames, count));
	return check_limit(answer);
}

struct err *api_answer_module_end(struct api_answer *answer)
{
	TRY(answer->format == API_FORMAT_JSON ? json_answer_module_end(answer) : protobuf_answer_module_end(answer));
	answer->first_module = false;
	answer->table = NULL;
	return check_limit(answer);
}

struct err *api_answer_end(struct api_answer *answer, struct buf *ret)
{
	if (answer->format == API_FORMAT_JSON)
		TRY(json_answer_end(answer));
	*ret = answer->out;
	answer->out = (struct buf){0};
	return NULL;
}

void api_answer_destroy(struct api_answer *answer)
{
	if (!answer)
		return;
	buf_deinit(&answer->out);
	protobuf_state_deinit(&answer->protobuf);
	free(answer);
}

void api_answer_destroyp(struct api_answer **answer)
{
	api_answer_destroy(*answer);
}
