// SPDX-License-Identifier: Apache-2.0
/*
 * SymbolizeRequest by nanopb. Modules, IDs and addresses go through callbacks, since nanopb's fixed arrays
 * would fail the whole message without saying why. A callback that fails leaves its reason in struct decode; what
 * nanopb itself refuses is ERR_INVALID with nanopb's word for it.
 */
#include "proto/symbolize.h"

#include "cairn/v1/symbolize.pb.h"

#include <pb_decode.h>

_Static_assert(PROTO_RESPONSE_MODULES == cairn_v1_SymbolizeResponse_modules_tag, "");
_Static_assert(PROTO_RESPONSE_STRINGS == cairn_v1_SymbolizeResponse_strings_tag, "");
_Static_assert(PROTO_RESPONSE_FUNCTIONS == cairn_v1_SymbolizeResponse_functions_tag, "");
_Static_assert(PROTO_RESPONSE_FRAMES == cairn_v1_SymbolizeResponse_frames_tag, "");
_Static_assert(PROTO_FUNCTION_NAME == cairn_v1_SymbolizeResponse_Function_name_tag, "");
_Static_assert(PROTO_FUNCTION_SYMBOL == cairn_v1_SymbolizeResponse_Function_symbol_tag, "");
_Static_assert(PROTO_FUNCTION_START_LINE == cairn_v1_SymbolizeResponse_Function_start_line_tag, "");
_Static_assert(PROTO_FUNCTION_ALIASES == cairn_v1_SymbolizeResponse_Function_aliases_tag, "");
_Static_assert(PROTO_FRAME_FUNCTION == cairn_v1_SymbolizeResponse_Frame_function_tag, "");
_Static_assert(PROTO_FRAME_FILE == cairn_v1_SymbolizeResponse_Frame_file_tag, "");
_Static_assert(PROTO_FRAME_LINE == cairn_v1_SymbolizeResponse_Frame_line_tag, "");
_Static_assert(PROTO_FRAME_COLUMN == cairn_v1_SymbolizeResponse_Frame_column_tag, "");
_Static_assert(PROTO_FRAME_INLINED == cairn_v1_SymbolizeResponse_Frame_inlined_tag, "");
_Static_assert(PROTO_SYMBOLS_SOURCE == cairn_v1_SymbolizeResponse_Symbols_source_tag, "");
_Static_assert(PROTO_SYMBOLS_KIND == cairn_v1_SymbolizeResponse_Symbols_kind_tag, "");
_Static_assert(PROTO_MODULE_FILE_ID == cairn_v1_SymbolizeResponse_Module_file_id_tag, "");
_Static_assert(PROTO_MODULE_BUILD_ID == cairn_v1_SymbolizeResponse_Module_build_id_tag, "");
_Static_assert(PROTO_MODULE_STATUS == cairn_v1_SymbolizeResponse_Module_status_tag, "");
_Static_assert(PROTO_MODULE_REASON == cairn_v1_SymbolizeResponse_Module_reason_tag, "");
_Static_assert(PROTO_MODULE_RETRY_AFTER_S == cairn_v1_SymbolizeResponse_Module_retry_after_s_tag, "");
_Static_assert(PROTO_MODULE_SYMBOLS == cairn_v1_SymbolizeResponse_Module_symbols_tag, "");
_Static_assert(PROTO_MODULE_RESULT_STATUS == cairn_v1_SymbolizeResponse_Module_result_status_tag, "");
_Static_assert(PROTO_MODULE_FRAME_COUNT == cairn_v1_SymbolizeResponse_Module_frame_count_tag, "");
_Static_assert(PROTO_MODULE_FUNCTION_OFFSET == cairn_v1_SymbolizeResponse_Module_function_offset_tag, "");
_Static_assert(PROTO_MODULE_FRAMES == cairn_v1_SymbolizeResponse_Module_frames_tag, "");

struct decode {
	const struct proto_symbolize_limits *limits;
	struct arena *arena;
	struct proto_symbolize_request *request;
	size_t addresses;	/* of all modules so far */
	struct err *failed;
};

static bool fail(struct decode *d, struct err *e)
{
	d->failed = e;
	return false;
}

/*
 * Makes room for one more element in an array that lives in the arena; the old one stays behind until the arena
 * goes. NULL when memory is out.
 */
static void *grow(struct decode *d, void *items, size_t *cap, size_t count, size_t item_size)
{
	if (count < *cap)
		return items;
	size_t new_cap = *cap ? *cap * 2 : 16;
	void *grown = arena_alloc(d->arena, new_cap * item_size);
	if (!grown) {
		d->failed = err_nomem();
		return NULL;
	}
	if (count)
		memcpy(grown, items, count * item_size);
	*cap = new_cap;
	return grown;
}

static struct proto_symbolize_module *last_module(struct decode *d)
{
	return &d->request->modules[d->request->module_count - 1];
}

/* Called for a packed run with all of its bytes, and for a value on its own with just those. */
static bool on_addresses(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
	struct decode *d = *arg;
	struct proto_symbolize_module *module = last_module(d);

	(void)field;
	while (stream->bytes_left) {
		uint64_t address;
		if (!pb_decode_varint(stream, &address))
			return false;
		if (d->addresses == d->limits->addresses)
			return fail(d, err_new(ERR_LIMIT, "modules[%zu].addresses: more than %zu addresses in all",
					       d->request->module_count - 1, d->limits->addresses));
		module->addresses = grow(d, module->addresses, &module->address_cap, module->address_count, sizeof(address));
		if (!module->addresses)
			return false;
		module->addresses[module->address_count++] = address;
		d->addresses++;
	}
	return true;
}

static bool read_id(pb_istream_t *stream, uint8_t *bytes, size_t cap, size_t *len_ret)
{
	*len_ret = stream->bytes_left;
	if (*len_ret > cap)
		return pb_read(stream, NULL, stream->bytes_left);
	return pb_read(stream, bytes, *len_ret);
}

static bool on_file_id(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
	struct proto_symbolize_module *module = last_module(*arg);

	(void)field;
	return read_id(stream, module->file_id, sizeof(module->file_id), &module->file_id_len);
}

static bool on_build_id(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
	struct proto_symbolize_module *module = last_module(*arg);

	(void)field;
	return read_id(stream, module->build_id, sizeof(module->build_id), &module->build_id_len);
}

static bool on_module(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
	struct decode *d = *arg;
	struct proto_symbolize_request *request = d->request;

	(void)field;
	if (request->module_count == d->limits->modules)
		return fail(d, err_new(ERR_LIMIT, "modules: more than %zu", d->limits->modules));
	request->modules = grow(d, request->modules, &request->module_cap, request->module_count, sizeof(*request->modules));
	if (!request->modules)
		return false;
	request->modules[request->module_count++] = (struct proto_symbolize_module){0};

	cairn_v1_SymbolizeRequest_Module message = cairn_v1_SymbolizeRequest_Module_init_zero;
	message.file_id = (pb_callback_t){.funcs.decode = on_file_id, .arg = d};
	message.build_id = (pb_callback_t){.funcs.decode = on_build_id, .arg = d};
	message.addresses = (pb_callback_t){.funcs.decode = on_addresses, .arg = d};
	if (!pb_decode(stream, cairn_v1_SymbolizeRequest_Module_fields, &message))
		return false;
	last_module(d)->address_kind = (uint32_t)message.address_kind;
	return true;
}

struct err *proto_symbolize_request_decode(const void *bytes, size_t len, const struct proto_symbolize_limits *limits,
	struct arena *arena, struct proto_symbolize_request *ret)
{
	struct proto_symbolize_request request = {0};
	struct decode d = {.limits = limits, .arena = arena, .request = &request};
	cairn_v1_SymbolizeRequest message = cairn_v1_SymbolizeRequest_init_zero;
	message.modules = (pb_callback_t){.funcs.decode = on_module, .arg = &d};
	pb_istream_t stream = pb_istream_from_buffer(bytes, len);

	if (!pb_decode(&stream, cairn_v1_SymbolizeRequest_fields, &message)) {
		if (d.failed)
			return d.failed;
		if (request.module_count)
			return err_new(ERR_INVALID, "modules[%zu]: not a SymbolizeRequest: %s", request.module_count - 1,
				PB_GET_ERROR(&stream));
		return err_new(ERR_INVALID, "not a SymbolizeRequest: %s", PB_GET_ERROR(&stream));
	}
	request.demangle = (uint32_t)message.demangle;
	request.wait_ms = message.wait_ms;
	*ret = request;
	return NULL;
}
